"""Every type of the installed PEFT, dry-run from its own configuration class, against PEFT on a real tiny model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]
torch = pytest.importorskip("torch")
for name in ("transformers", "bitsandbytes"):
    pytest.importorskip(name)
peft = pytest.importorskip("peft")

from dryruns.real_adapters import adapter_of, base_model, dryly_held, generation_of, really_held, workload_of  # noqa: E402
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING  # noqa: E402

from peftbench.dryrun.child.peft_config import NO_CHECKPOINTING  # noqa: E402
from peftbench.dryrun.trace.trace import Trace  # noqa: E402
from peftbench.dryrun.workload import Workload  # noqa: E402
from peftbench.inputs.recipe import AdapterSpec, QuantizationSpec  # noqa: E402
from peftbench.libraries.refusal import Refused  # noqa: E402

Run = Callable[[Workload], Trace]
KINDS = sorted(kind.value.lower() for kind in PEFT_TYPE_TO_CONFIG_MAPPING)
ON_ITS_OWN = [kind for kind in KINDS if kind != "xlora"]
"""X-LoRA mixes adapters that have been trained before: see test_xlora."""
QUANTIZATIONS = {"nf4": QuantizationSpec(), "int8": QuantizationSpec(quant_type="int8")}


def same(dry_run: Run, workload: Workload, base: Any) -> None:
    """Both hold the same, or both refuse: what PEFT cannot train is refused in a line."""
    try:
        expected = really_held(workload, base)
    except Exception:
        with pytest.raises(Refused) as refused:
            dry_run(workload)
        assert "\n" not in refused.value.what
        return
    assert dryly_held(dry_run(workload)) == expected


# ── the types ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ON_ITS_OWN)
def test_tensors_gradients_and_states_are_those_of_peft(dry_run: Run, kind: str) -> None:
    same(dry_run, workload_of(adapter_of(kind)), base_model())


def test_only_a_missing_package_keeps_a_type_from_being_trained(dry_run: Run) -> None:
    refused = []
    for kind in ON_ITS_OWN:
        try:
            really_held(workload_of(adapter_of(kind)), base_model())
        except Refused as error:
            refused.append(error.what)
    assert all("scikit-learn" in what for what in refused) and len(refused) <= 1


@pytest.mark.parametrize("kind", ["lora", "prompt_tuning", *(kind.lower() for kind in NO_CHECKPOINTING)])
def test_checkpointing(dry_run: Run, kind: str) -> None:
    workload = workload_of(adapter_of(kind), gradient_checkpointing=True)
    if kind.upper() not in NO_CHECKPOINTING:
        assert dryly_held(dry_run(workload)) == really_held(workload, base_model())
        return
    with pytest.raises(Refused, match=f"{kind} cannot be trained under gradient checkpointing|none is named"):
        dry_run(workload)


@pytest.mark.slow
@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("kind", [kind for kind in ON_ITS_OWN if kind.upper() not in NO_CHECKPOINTING])
def test_checkpointing_changes_no_tensors(dry_run: Run, kind: str, use_reentrant: bool) -> None:
    same(dry_run, workload_of(adapter_of(kind), gradient_checkpointing=True, use_reentrant=use_reentrant), base_model())


@pytest.mark.parametrize("kind", ["lora", "poly", "prefix_tuning", "vera"])
def test_generation_trains_nothing(dry_run: Run, kind: str) -> None:
    trace = dry_run(generation_of(adapter_of(kind)))
    assert trace.facts["trainable_parameters"] == 0


# ── on bitsandbytes' layers ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """Loads the tiny model as from_pretrained quantizes it; 4-bit weights are kept from being packed for the CPU."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    folder = tmp_path_factory.mktemp("tiny")
    base_model().save_pretrained(folder)
    configs = {
        "nf4": BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        ),
        "int8": BitsAndBytesConfig(load_in_8bit=True),
    }  # fmt: skip

    def load(name: str) -> Any:
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, quantization_config=configs[name], dtype=torch.bfloat16, device_map="cpu"
        )
        for module in model.modules():
            if hasattr(module, "support_avx512bf16_for_cpu"):
                module.support_avx512bf16_for_cpu = False
        return model.requires_grad_(False)

    return load


def on_quantized(dry_run: Run, load: Callable[[str], Any], adapter: AdapterSpec, name: str) -> None:
    same(dry_run, workload_of(adapter, quantization=QUANTIZATIONS[name]), load(name))


def test_int8(dry_run: Run, quantized: Callable[[str], Any]) -> None:
    on_quantized(dry_run, quantized, adapter_of("lora"), "int8")


@pytest.mark.parametrize("kind", ["lora", "loha", "oft", "prompt_tuning", "delora"])
def test_nf4(dry_run: Run, quantized: Callable[[str], Any], kind: str) -> None:
    on_quantized(dry_run, quantized, adapter_of(kind), "nf4")


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in ON_ITS_OWN if kind != "boft"])
def test_nf4_of_every_type(dry_run: Run, quantized: Callable[[str], Any], kind: str) -> None:
    """BOFT's permutations stay on the CPU beside quantized weights, which are not moved after loading."""
    on_quantized(dry_run, quantized, adapter_of(kind), "nf4")


@pytest.mark.parametrize("name", ["nf4", pytest.param("int8", marks=pytest.mark.slow)])
@pytest.mark.parametrize("flags", [{"use_dora": True}, {"use_rslora": True, "dropout": 0.1}])
def test_lora_on_quantized_layers(
    dry_run: Run, quantized: Callable[[str], Any], name: str, flags: dict[str, Any]
) -> None:
    on_quantized(dry_run, quantized, AdapterSpec(r=4, target_modules=("all-linear",), **flags), name)


# ── adapter_config.json ─────────────────────────────────────────────────────────────────────────────────────────────


def saved(folder: Path, config: Any) -> str:
    config.save_pretrained(folder)
    return (folder / "adapter_config.json").read_text()


LORA: dict[str, dict[str, Any]] = {
    "rank_pattern": {"r": 4, "rank_pattern": {"layers.1.self_attn.q_proj": 7}, "alpha_pattern": {"v_proj": 3}},
    "modules_to_save": {"r": 4, "modules_to_save": ["lm_head", "embed_tokens"]},
    "layers_to_transform": {"r": 4, "layers_to_transform": [0, 2], "layers_pattern": "layers"},
    "exclude_modules": {"r": 4, "target_modules": "all-linear", "exclude_modules": ["down_proj"]},
    "regular expression": {"r": 4, "target_modules": r".*\.[12]\..*(up|down)_proj"},
    "bias": {"r": 4, "bias": "all", "lora_bias": True},
    "embeddings": {"r": 4, "target_modules": ["embed_tokens", "lm_head"], "use_dora": True},
    "tokens": {"r": 4, "trainable_token_indices": [1, 5, 7]},
    "replication": {"r": 4, "layer_replication": [[0, 2], [1, 3]]},
    "parameters": {"r": 4, "target_parameters": ["mlp.up_proj.weight"], "target_modules": []},
    "pissa": {"r": 4, "init_lora_weights": "pissa"},
    "olora": {"r": 4, "init_lora_weights": "olora", "use_rslora": True},
}
OTHERS: dict[str, dict[str, Any]] = {
    "IA3": {"target_modules": ["k_proj", "down_proj"], "feedforward_modules": ["down_proj"]},
    "OFT": {"oft_block_size": 16, "target_modules": ["q_proj"]},
    "VERA": {"r": 8},
    "ADALORA": {"init_r": 6, "total_step": 100},
    "LN_TUNING": {},
    "PROMPT_TUNING": {"num_virtual_tokens": 7},
    "P_TUNING": {"num_virtual_tokens": 7, "encoder_hidden_size": 24, "encoder_reparameterization_type": "LSTM"},
    "TRAINABLE_TOKENS": {"token_indices": [2, 4]},
}


@pytest.mark.parametrize("options", LORA.values(), ids=LORA)
def test_saved_lora(dry_run: Run, tmp_path: Path, options: dict[str, Any]) -> None:
    text = saved(tmp_path, peft.LoraConfig(task_type="CAUSAL_LM", **options))
    same(dry_run, workload_of(adapter_config=text), base_model())


@pytest.mark.parametrize("kind", OTHERS)
def test_saved_configuration(dry_run: Run, tmp_path: Path, kind: str) -> None:
    text = saved(tmp_path, PEFT_TYPE_TO_CONFIG_MAPPING[kind](task_type="CAUSAL_LM", **OTHERS[kind]))
    same(dry_run, workload_of(adapter_config=text), base_model())


def test_xlora(dry_run: Run, tmp_path: Path) -> None:
    for rank in (4, 5):
        lora = peft.LoraConfig(r=rank, task_type="CAUSAL_LM")
        peft.get_peft_model(base_model(), lora).save_pretrained(tmp_path / str(rank))
    folders = {"0": str(tmp_path / "4"), "1": str(tmp_path / "5")}
    config = peft.XLoraConfig(task_type="CAUSAL_LM", hidden_size=64, xlora_depth=2, adapters=folders)
    same(dry_run, workload_of(adapter_config=saved(tmp_path, config)), base_model())


def test_what_the_adapter_starts_from_takes_no_memory(dry_run: Run) -> None:
    given = {"peft_type": "LORA", "r": 4, "init_lora_weights": "corda"}
    text = {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 7, "prompt_tuning_init": "TEXT",
            "prompt_tuning_init_text": "a b c", "tokenizer_name_or_path": "gpt2"}  # fmt: skip
    for config in (given, text):
        assert dry_run(workload_of(adapter_config=json.dumps(config))).facts["trainable_parameters"]


def test_unknown_keys_are_ignored_as_peft_ignores_them(dry_run: Run) -> None:
    text = json.dumps({"peft_type": "LORA", "r": 4, "of_a_later_version": {"a": 1}, "inference_mode": True})
    assert dryly_held(dry_run(workload_of(adapter_config=text))) == dryly_held(
        dry_run(workload_of(adapter_config=json.dumps({"peft_type": "LORA", "r": 4})))
    )


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('{"peft_type": "LORAX"}', "no type LORAX"),
        ('{"r": 8}', r"no type \(none\)"),
        ('{"peft_type": "LORA", "target_modules": ["query"]}', "not found in the base model"),
        ('{"peft_type": "LORA", "r": 0}', "positive integer"),
        ('{"peft_type": "XLORA", "adapters": {"0": "/nowhere"}}', "adapter_config.json"),
        ('{"peft_type": "ADAMSS", "use_dynamic_rank": true}', "depend on the weights|scikit-learn"),
        ("r: 8", "is not JSON"),
        ("[8]", "not a JSON object"),
    ],
)
def test_refusals_are_one_line_with_a_hint(dry_run: Run, text: str, what: str) -> None:
    with pytest.raises(Refused, match=what) as refused:
        dry_run(workload_of(adapter_config=text))
    assert "\n" not in refused.value.what and refused.value.hint
    assert len(refused.value.what) < 400


def test_a_mistyped_type_is_met_with_the_nearest(dry_run: Run) -> None:
    with pytest.raises(Refused) as refused:
        dry_run(workload_of(adapter_config=json.dumps({"peft_type": "LORRA"})))
    assert refused.value.hint.startswith("Did you mean lora?")
