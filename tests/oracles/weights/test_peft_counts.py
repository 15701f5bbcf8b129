"""Adapter tensors against PEFT itself: every type on tiny models of every kind of architecture."""

import inspect
import os
from collections import Counter

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING  # noqa: E402

from peftbench.base.errors import SpecError  # noqa: E402
from peftbench.estimate.peft_types.table import METHODS, NOT_DERIVED  # noqa: E402
from peftbench.estimate.peft_types.tensors import (  # noqa: E402
    adapter_file_bytes,
    adapter_tensors,
    frozen_bytes,
    target_modules,
    trainable_parameters,
)
from peftbench.inputs.model.config_json import read_config  # noqa: E402
from peftbench.inputs.model.family import find_family, known_families  # noqa: E402
from peftbench.inputs.recipe import AdapterSpec, DType  # noqa: E402

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]

SMALL = {
    "vocab_size": 96, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0,
}  # fmt: skip
GPT2 = {"vocab_size": 96, "n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 32}
MODELS = {
    "llama": SMALL,
    "llama-mha": SMALL | {"model_type": "llama", "num_key_value_heads": 4},
    "llama-wide-heads": SMALL | {"model_type": "llama", "head_dim": 32, "tie_word_embeddings": True},
    "qwen2": SMALL,
    "gemma2": SMALL | {"head_dim": 16},
    "phi3": SMALL,
    "phi": SMALL,
    "opt": {
        "vocab_size": 96, "hidden_size": 64, "ffn_dim": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
        "word_embed_proj_dim": 32, "max_position_embeddings": 32, "do_layer_norm_before": False,
    },
    "gpt2": GPT2,
    "gpt_bigcode": GPT2,
    "gpt_neox": {key: value for key, value in SMALL.items() if key != "num_key_value_heads"},
    "falcon": {"vocab_size": 96, "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4},
}  # fmt: skip

WITH_EXPERTS = ("gpt_oss", "mixtral", "olmoe", "qwen2_moe", "qwen3_moe")
"""Each way of PEFT with experts: bare, renamed, fused or not. Others are one of them, for what PEFT makes of it."""
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
MODELS |= dict.fromkeys(WITH_EXPERTS, SMALL | EXPERTS)

TINY_OPTIONS = {
    "lora": {"r": 4}, "adalora": {"init_r": 6}, "hira": {"r": 4}, "loha": {"r": 4}, "lokr": {"r": 2},
    "oft": {"oft_block_size": 16}, "randlora": {"r": 5}, "fourierft": {"n_frequency": 100},
    "waveft": {"n_frequency": 70}, "glora": {"r": 4}, "hra": {"r": 4}, "miss": {"r": 4},
    "road": {"group_size": 16},
    "shira": {"r": 4}, "c3a": {"block_size": 16}, "delora": {"r": 4}, "gralora": {"r": 4}, "deft": {"r": 4},
    "psoft": {"r": 4}, "peanut": {"r": 4}, "vblora": {"r": 2, "num_vectors": 8, "vector_length": 16},
    "poly": {"r": 4}, "lily": {"r": 4}, "trainable_tokens": {"token_indices": "1,2,3"},
    "adaption_prompt": {"adapter_len": 5, "adapter_layers": 2},
}  # fmt: skip
VARIANTS = {
    "lora": (
        {"r": 4, "use_dora": True}, {"r": 4, "use_rslora": True}, {"r": 4, "lora_bias": True},
        {"r": 4, "init_lora_weights": "mica"},
    ),
    "miss": (
        {"r": 4, "init_weights": "bat"}, {"r": 4, "init_weights": "mini", "mini_r": 8},
        {"r": 4, "init_weights": False},
    ),
    "psoft": (
        {"r": 4, "psoft_svd": "lowrank", "use_cayley_neumann": True, "psoft_mag_a": False},
        {"r": 4, "psoft_orth": False, "psoft_mag_b": False},
    ),
    "glora": tuple(
        {"r": 4, "config_A_B": a_b, "config_C": c, "config_D_E": d_e}
        for a_b, c, d_e in (("vector", "vector", "vector"), ("constant", "none", "none"))
    ),
    "lokr": ({"r": 2, "decompose_both": True, "decompose_factor": 8}, {"r": 64}),
    "oft": ({"oft_block_size": 24}, {"oft_block_size": 16, "block_share": True}, {"r": 8}),
    "boft": ({"boft_block_num": 8},),
    "gralora": ({"r": 4, "gralora_k": 4, "hybrid_r": 2},),
    "road": ({"variant": "road_2", "group_size": 16}, {"variant": "road_4", "group_size": 8}),
    "deft": ({"r": 4, "para": True},),
    "peanut": ({"r": 4, "depth": 2},),
    "osf": ({"effective_rank": 10},),
    "poly": ({"r": 4, "n_tasks": 3, "n_skills": 2, "n_splits": 2},),
    "supertuning": ({"sparsity": 0.9, "r": 4},),
    "lily": ({"r": 4, "num_B": 3}, {"r": 4, "stride_A": 2}),
    "tinylora": ({"r": 3, "u": 7}, {"weight_tying": 0.4}, {"weight_tying": 1.0}),
    "unilora": ({"r": 2, "theta_d_length": 64},),
    "multitask_prompt_tuning": ({"num_tasks": 3, "num_ranks": 2},),
    "p_tuning": (
        {"encoder_hidden_size": 24},
        {"encoder_hidden_size": 24, "encoder_reparameterization_type": "LSTM", "encoder_num_layers": 3},
    ),
    "prefix_tuning": ({"prefix_projection": True}, {"prefix_projection": True, "encoder_hidden_size": 24}),
    "cartridge": ({"num_virtual_tokens": 7, "num_frozen_tokens": 3},),
}
CASES = [
    (kind, options) for kind in METHODS for options in (TINY_OPTIONS.get(kind, {}), *VARIANTS.get(kind, ()))
]
TARGETS = {"default": None, "attention": ("q_proj", "v_proj"), "all-linear": ("all-linear",)}


ON_CARDS = ("psoft",)
"""cuSOLVER stores Vh by rows, so the first rows keep all of it; LAPACK's are copied. The dry run sees the former."""


def adapter_of(kind, options, targets=None, dtype=DType.FLOAT32):
    """The spec, with r and the LoRA flags in their own fields as the command line would put them."""
    options = dict(options)
    fields = {name: options.pop(name) for name in ("r", "use_dora", "use_rslora") if name in options}
    return AdapterSpec(
        peft_type=kind, target_modules=targets, dtype=dtype, options=tuple(sorted(options.items())), **fields
    )


def config_of(kind, options, targets):
    """PEFT's configuration; what it needs beyond the spec is filled in without changing a size."""
    options = dict(options)
    if METHODS[kind].each is not None and targets is not None:
        options["target_modules"] = "all-linear" if targets == ("all-linear",) else list(targets)
    if "num_virtual_tokens" in METHODS[kind].options and kind != "cpt":
        options.setdefault("num_virtual_tokens", 20)
    if kind == "cpt":
        options |= {"cpt_token_ids": [1] * 20, "cpt_mask": [1] * 20, "cpt_tokens_type_mask": [1] * 20}
    if kind == "trainable_tokens":
        options["token_indices"] = [int(i) for i in options["token_indices"].split(",")]
    if kind == "adalora":
        options["total_step"] = 10
    if kind == "oft" and "r" in options:
        options["oft_block_size"] = 0
    if kind == "boft" and "boft_block_num" in options:
        options["boft_block_size"] = 0
    if kind == "supertuning" and "r" in options:
        options["lora_alpha"] = 8
    return PEFT_TYPE_TO_CONFIG_MAPPING[kind.upper()](task_type="CAUSAL_LM", **options)


def build(name):
    config = {"model_type": name, **MODELS[name]}
    real = transformers.AutoConfig.for_model(**config)
    return transformers.AutoModelForCausalLM.from_config(real, dtype=torch.bfloat16)


def spec_of(name):
    return read_config({"model_type": name, **MODELS[name]}, name, "a test")


def tensors_of(model):
    """Parameters, buffers, and SHiRA's indices: a plain attribute that follows the weights to the card."""
    named = [*model.parameters(), *model.buffers()]
    for module in model.modules():
        named.extend(getattr(module, "shira_indices", {}).values())
    return {id(tensor): tensor for tensor in named}.values()


def adapt(name, config, **kwargs):
    """The adapted model, its trained tensors and those it keeps frozen; the error where PEFT refuses."""
    base = build(name)
    before = {tensor.data_ptr(): tensor for tensor in tensors_of(base)}
    try:
        model = peft.get_peft_model(base, config, **kwargs)
    except (ValueError, TypeError, NotImplementedError) as refusal:
        return refusal, [], []
    added = [t for t in tensors_of(model) if t.requires_grad or t.data_ptr() not in before]
    return model, [t for t in added if t.requires_grad], [t for t in added if not t.requires_grad]


def multiset(groups):
    """How many tensors there are of each shape, without regard to the order of dimensions."""
    total = Counter()
    for group in groups:
        total[tuple(sorted(group.shape))] += group.count
    return total


def check(name, kind, options, targets):
    adapter = adapter_of(kind, options, targets)
    model, trained, frozen = adapt(name, config_of(kind, options, targets))
    if isinstance(model, Exception) or not trained:  # PEFT's OSF silently adapts no Conv1D
        with pytest.raises(SpecError):
            adapter_tensors(spec_of(name), adapter)
        return
    spec = spec_of(name)
    expected = adapter_tensors(spec, adapter)
    assert trainable_parameters(spec, adapter) == model.get_nb_trainable_parameters()[0]
    assert multiset(expected) == Counter(tuple(sorted(t.shape)) for t in trained)
    assert sum(g.bytes for g in expected) == sum(t.nbytes for t in trained)
    assert frozen_bytes(spec, adapter) == sum(t.nbytes for t in frozen) or adapter.peft_type in ON_CARDS


@pytest.mark.parametrize("kind", METHODS)
def test_default_targets(kind):
    for name in MODELS:
        check(name, kind, TINY_OPTIONS.get(kind, {}), None)


@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), ("all-linear",)], ids=["q,v", "all-linear"])
@pytest.mark.parametrize(("kind", "options"), CASES, ids=[f"{k}-{'-'.join(map(str, o))}" for k, o in CASES])
def test_options(kind, options, targets):
    takes = METHODS[kind].each is not None and kind != "ln_tuning"
    check("llama", kind, options, targets if takes else None)


def some_modules(name):
    """Linear modules of two layers by their full names, another without its front, and one of every layer."""
    linear = [key for key, m in build(name).named_modules() if type(m).__name__.endswith(("Linear", "Conv1D"))]
    numbered = [key for key in linear if any(part.isdigit() for part in key.split("."))]
    first, last = ([key for key in numbered if f".{layer}." in key] for layer in (0, 2))
    return (*first[:2], last[-1].partition(".")[2], last[0].rpartition(".")[2])


@pytest.mark.parametrize("name", MODELS)
def test_modules_named_in_full(name):
    check(name, "lora", {"r": 4}, some_modules(name))


@pytest.mark.parametrize("kind", [k for k in METHODS if METHODS[k].each is not None and k not in ("ln_tuning", "beft")])
def test_modules_named_in_full_of_every_type(kind):
    """Where two names match one module Lily takes either, by the order of a set: its count is not always the same."""
    names = some_modules("llama")
    check("llama", kind, TINY_OPTIONS.get(kind, {}), names[:-1] if kind == "lily" else names)


@pytest.mark.parametrize("other", ["use_dora", "lora_bias"])
def test_mica_is_alone(other):
    options = {"r": 4, "init_lora_weights": "mica", other: True}
    with pytest.raises(SpecError, match="no MiCA with"):
        adapter_tensors(spec_of("llama"), adapter_of("lora", options))
    with pytest.raises(ValueError, match=r"init_lora_weights|variant"):
        peft.get_peft_model(build("llama"), config_of("lora", options, None))


@pytest.mark.parametrize("path", ["lora", "vector", "none"])
def test_glora_on_modules_with_and_without_a_bias(path):
    options = {"config_A_B": path, "config_C": path, "config_D_E": "none" if path == "lora" else path}
    for name in ("llama", "qwen2", "phi"):
        check(name, "glora", {"r": 4, **options}, None)


@pytest.mark.parametrize("kind", ["lora", "vera", "glora", "ia3", "oft", "randlora"])
def test_all_linear(kind):
    for name in MODELS:
        if not name.startswith("llama"):
            check(name, kind, TINY_OPTIONS.get(kind, {}), ("all-linear",))


def old_names(name):
    """Both halves of the fused gate, one half, the last matrix and the router, by their names in transformers 4."""
    old = find_family(name).expert_targets
    if not old:
        return (("down_proj",),)
    halves = tuple(target for target, new in old.items() if new == "gate_up_proj")
    down = tuple(target for target, new in old.items() if new == "down_proj")
    return ((*halves, *down, "q_proj"), (*halves[:1], "q_proj"), down, ("gate", "o_proj"))


@pytest.mark.parametrize(("name", "targets"), [(name, names) for name in WITH_EXPERTS for names in old_names(name)])
def test_experts(name, targets):
    """LoRA reaches fused experts by their old names, in most families that have them."""
    check(name, "lora", {"r": 4}, targets)


@pytest.mark.parametrize("options", [{"r": 4}, {"r": 4, "use_dora": True}])
@pytest.mark.parametrize("name", ["llama", "llama-wide-heads"])
def test_embedding_and_head(name, options):
    check(name, "lora", options, ("embed_tokens", "lm_head", "q_proj"))


@pytest.mark.parametrize("kind", METHODS)
def test_dtype_without_autocast(kind):
    """autocast_adapter_dtype=False: which tensors follow the base model's bfloat16, and which never do."""
    options = TINY_OPTIONS.get(kind, {})
    _, trained, frozen = adapt("llama", config_of(kind, options, None), autocast_adapter_dtype=False)
    adapter = adapter_of(kind, options, None, DType.BFLOAT16)
    assert sum(g.bytes for g in adapter_tensors(spec_of("llama"), adapter)) == sum(t.nbytes for t in trained)
    assert frozen_bytes(spec_of("llama"), adapter) == sum(t.nbytes for t in frozen) or kind in ON_CARDS


@pytest.mark.parametrize(("kind", "options"), CASES, ids=[f"{k}-{'-'.join(map(str, o))}" for k, o in CASES])
def test_file(kind, options, tmp_path):
    """The header holds names, so it is only estimated: the rest is exact."""
    model, _, _ = adapt("llama", config_of(kind, options, None))
    model.save_pretrained(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    header = 8 + int.from_bytes(file.read_bytes()[:8], "little")
    assert abs(adapter_file_bytes(spec_of("llama"), adapter_of(kind, options)) - file.stat().st_size) < header


def test_file_with_embeddings(tmp_path):
    options, targets = {"r": 4}, ("embed_tokens", "q_proj")
    model, _, _ = adapt("llama", config_of("lora", options, targets))
    model.save_pretrained(tmp_path)
    size = (tmp_path / "adapter_model.safetensors").stat().st_size
    assert adapter_file_bytes(spec_of("llama"), adapter_of("lora", options, targets)) == pytest.approx(
        size, abs=1000
    )


def test_every_type_is_priced_or_named():
    real = {str(getattr(kind, "value", kind)).lower() for kind in PEFT_TYPE_TO_CONFIG_MAPPING}
    assert real == set(METHODS) | set(NOT_DERIVED)


@pytest.mark.parametrize("kind", METHODS)
def test_defaults_are_those_of_peft(kind):
    fields = inspect.signature(PEFT_TYPE_TO_CONFIG_MAPPING[kind.upper()]).parameters
    ours_only = {"num_virtual_tokens", "adapter_len", "token_indices", "feedforward_modules"}
    for option, default in METHODS[kind].options.items():
        if option not in ours_only:
            assert getattr(fields[option].default, "value", fields[option].default) == default, option


@pytest.mark.parametrize("kind", [k for k, m in METHODS.items() if m.each])
def test_default_target_tables(kind):
    """Also for architectures that are not built here."""
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

    theirs = PEFT_TYPE_TO_TUNER_MAPPING[kind.upper()].target_module_mapping if kind != "ia3" else None
    for name in known_families() if theirs is not None else ():
        row = find_family(name)
        if not row.text_type:
            assert set(getattr(row.targets, METHODS[kind].targets)) == set(theirs.get(name, ())), name


@pytest.mark.parametrize("name", known_families())
def test_names_of_experts_and_adaption_prompts(name):
    from peft.tuners.adaption_prompt.config import TRANSFORMERS_MODEL_CONFIG

    assert find_family(name).adaption_prompt == (name in TRANSFORMERS_MODEL_CONFIG)


def test_names_of_targets():
    assert set(target_modules(spec_of("phi3"), AdapterSpec(target_modules=("all-linear",)))) == {
        "qkv_proj", "o_proj", "gate_up_proj", "down_proj"
    }  # fmt: skip
    assert target_modules(spec_of("llama"), AdapterSpec()) == ("q_proj", "v_proj")
    assert target_modules(spec_of("llama"), AdapterSpec(peft_type="prompt_tuning")) == ()
