"""The peaks of a training step, compared with the allocations of the real classes on the CPU.

Attention runs eagerly and dropout as `native_dropout`, for the reasons given in test_saved_tensors.py.
"""

from __future__ import annotations

import copy
import multiprocessing
from pathlib import Path

import pytest

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

from oracle.profiled_bytes import peaks  # noqa: E402
from oracle.table_peaks import table_peaks  # noqa: E402

from peftbench.estimate.parts.card import traits_of  # noqa: E402
from peftbench.estimate.training import moments_of  # noqa: E402
from peftbench.inputs.model.config_json import read_config  # noqa: E402
from peftbench.inputs.recipe import AdapterSpec, DType, TrainingSpec  # noqa: E402

BATCH, SEQUENCE, RANK = 4, 64, 4
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SIZES = {
    "hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 384,
    "vocab_size": 256, "max_position_embeddings": 512, **SPECIAL,
}  # fmt: skip
GROUPED = {**SIZES, "num_key_value_heads": 2}
CONFIGS = {
    "llama": GROUPED,
    "qwen2": GROUPED,
    "gemma2": {**GROUPED, "head_dim": 32},
    "gpt2": {"n_embd": 128, "n_layer": 3, "n_head": 4, "vocab_size": 256, **SPECIAL},
    "gpt_neox": SIZES,
    "opt": {**SIZES, "ffn_dim": 512, "word_embed_proj_dim": 128},
    "phi3": GROUPED,
    "olmo2": GROUPED,
}
OTHERS = {
    "granite": GROUPED,
    "glm4": GROUPED,
    "hunyuan_v1_dense": {**GROUPED, "head_dim": 32},
    "ernie4_5": {**GROUPED, "head_dim": 32},
    "olmo": {**GROUPED, "clip_qkv": 8.0},
    "stablelm": GROUPED,
    "nemotron": GROUPED,
    "apertus": GROUPED,
    "exaone4": {**GROUPED, "layer_types": ["sliding_attention", "sliding_attention", "full_attention"]},
    "seed_oss": GROUPED,
}
"""Families each of which computes something that those above do not."""
ADAPTERS = {"full": None, "lora": AdapterSpec(r=RANK, target_modules=("all-linear",))}
CHECKPOINTING = {"kept": None, "checkpointed": False, "checkpointed, reentrant": True}
"""use_reentrant, or None without checkpointing."""

OUT_OF_PLACE = (("gpt_neox", "lora", "float32"), ("gpt_neox", "full", "bfloat16"))
"""Where autograd adds two gradients out of place because each is a view of a matrix product's result, which the
tape adds in place; the two peak in the MLP of GPT-NeoX."""


@pytest.fixture(autouse=True)
def cuda_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the operation that F.dropout is on a card."""

    def dropout(x: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
        return torch.native_dropout(x, p, training)[0] if training and p else x

    monkeypatch.setattr("torch.nn.functional.dropout", dropout)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("checkpointing", ["kept", "checkpointed"])
@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("family", CONFIGS)
def test_a_step_peaks_where_the_real_model_does(family: str, adapter: str, checkpointing: str, dtype: str) -> None:
    compare(family, adapter, checkpointing, dtype)


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", ["kept", "checkpointed"])
@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("family", OTHERS)
def test_a_step_of_other_mechanisms(family: str, adapter: str, checkpointing: str) -> None:
    compare(family, adapter, checkpointing, "float32")


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_reentrant_checkpointing(family: str) -> None:
    compare(family, "lora", "checkpointed, reentrant", "bfloat16")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("family", CONFIGS)
def test_reentrant_checkpointing_of_every_family(family: str, adapter: str, dtype: str) -> None:
    compare(family, adapter, "checkpointed, reentrant", dtype)


def compare(family: str, adapter: str, checkpointing: str, dtype: str) -> None:
    forward, backward = real_peaks(family, adapter, checkpointing, dtype)
    training = TrainingSpec(
        sequence_length=SEQUENCE, micro_batch_size=BATCH, dtype=DType(dtype), autocast=False, attention="eager",
        gradient_checkpointing=checkpointing != "kept", use_reentrant=bool(CHECKPOINTING[checkpointing]),
        adapter=ADAPTERS[adapter],
    )  # fmt: skip
    model = read_config({"model_type": family, **(CONFIGS | OTHERS)[family]}, family, "test")
    step = moments_of(model, training, traits_of(None))
    found = [max(m.bytes_at(training.tokens, SEQUENCE) for m in moments) for moments in (step.forward, step.backward)]
    in_place = (family, adapter, dtype) in OUT_OF_PLACE and checkpointing != "kept"
    assert found[0] == pytest.approx(forward, rel=0.03)
    assert found[1] == pytest.approx(backward, rel=0.13 if in_place else 0.03)


def real_peaks(family: str, adapter: str, checkpointing: str, dtype: str) -> tuple[int, int]:
    """Peaks of a second step's passes, above the weights."""
    model = real_model(family, adapter, CHECKPOINTING[checkpointing], dtype)
    tokens = torch.randint(3, 256, (BATCH, SEQUENCE))
    mask = torch.ones_like(tokens)

    def forward() -> torch.Tensor:
        return model(input_ids=tokens, attention_mask=mask, labels=tokens).loss

    forward().backward()
    model.zero_grad()
    return peaks(forward)


def real_model(family: str, adapter: str, reentrant: bool | None, dtype: str) -> torch.nn.Module:
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(family, **copy.deepcopy((CONFIGS | OTHERS)[family]))
    config._attn_implementation = "eager"
    config.use_cache = False
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype)).train()
    if ADAPTERS[adapter]:
        model = peft.get_peft_model(
            model, peft.LoraConfig(r=RANK, target_modules="all-linear", task_type="CAUSAL_LM")
        )
        model.enable_input_require_grads()
    if reentrant is not None:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    return model


# ── tied embeddings ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's resettable high-water mark")
def test_the_gradient_of_a_tied_table_is_added_out_of_place() -> None:
    """Head's gradient, embedding's gradient and their sum; untied, one gradient for each of the two tables."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        tied, untied = pool.map(table_peaks, [True, False])
    assert tied == pytest.approx(3, abs=0.15)
    assert untied == pytest.approx(2, abs=0.15)
