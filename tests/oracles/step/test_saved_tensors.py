"""The bytes that a decoder layer keeps for backward, compared with what autograd really saves on the CPU.

What a CUDA card does differently is made equal or left out: dropout runs as `native_dropout` (a CPU multiplies by a
mask in the type of its input instead of one byte an element), attention runs eagerly (a CPU has other fused kernels),
and autocast is off (a CPU's has other lists of operations). A CPU keeps LayerNorm's statistics in 16 bit.

Left out too: indices, 8 bytes each, by which tokens go to experts and come back (some 60 bytes a token).
"""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

from oracle.model_variants import VARIANTS  # noqa: E402

from peftbench.estimate.forward.kernels import Kernels  # noqa: E402
from peftbench.estimate.forward.moments import _layers  # noqa: E402
from peftbench.estimate.forward.step import step_of  # noqa: E402
from peftbench.inputs.model.config_json import read_config  # noqa: E402
from peftbench.inputs.model.weight import Role  # noqa: E402
from peftbench.inputs.model.weights import weights_of  # noqa: E402
from peftbench.inputs.recipe import AdapterSpec, DType, TrainingSpec  # noqa: E402
from peftbench.libraries.adapter import leave_out  # noqa: E402

BATCH, SEQUENCE = 4, 24
TOLERANCE = 0.012
"""LayerNorm over heads of 16 channels keeps statistics in 16 bit here and in 32 bit on a card: 1.1 %."""
RANK = 4
LORA = {"peft_type": "lora", "r": RANK, "target_modules": ("all-linear",)}
ADAPTERS = {
    "full": None,
    "lora": AdapterSpec(**LORA),
    "lora in bfloat16": AdapterSpec(**LORA, dtype=DType.BFLOAT16),
    "lora with dropout": AdapterSpec(**LORA, dropout=0.1),
    "lora with dropout in bfloat16": AdapterSpec(**LORA, dtype=DType.BFLOAT16, dropout=0.1),
    "norms only": AdapterSpec(peft_type="ln_tuning"),
}
FIRST = (("full", "float32"), ("lora", "bfloat16"))
LATER = (
    ("full", "bfloat16"), ("lora", "float32"), ("lora in bfloat16", "bfloat16"), ("lora with dropout", "float32"),
    ("lora with dropout", "bfloat16"), ("lora with dropout in bfloat16", "bfloat16"),
)  # fmt: skip
"""Adapters of a float32 model are never in bfloat16: PEFT makes them in the model's type, or in float32."""
NORMED = ("llama defaults", "mistral defaults", "gemma defaults", "gemma2 defaults", "gpt2 defaults", "phi defaults")
"""Of families whose norms PEFT's ln_tuning all trains by default."""


@pytest.fixture(autouse=True)
def cuda_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the operation that F.dropout is on a card."""

    def dropout(x: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
        return torch.native_dropout(x, p, training)[0] if training and p else x

    monkeypatch.setattr("torch.nn.functional.dropout", dropout)


@pytest.mark.parametrize(("adapter", "dtype"), FIRST)
@pytest.mark.parametrize("name", VARIANTS)
def test_a_layer_keeps_what_autograd_saves(name: str, adapter: str, dtype: str) -> None:
    compare(name, adapter, dtype)


@pytest.mark.slow
@pytest.mark.parametrize(("adapter", "dtype"), LATER)
@pytest.mark.parametrize("name", VARIANTS)
def test_a_layer_keeps_what_autograd_saves_under_any_recipe(name: str, adapter: str, dtype: str) -> None:
    compare(name, adapter, dtype)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", NORMED)
def test_a_layer_whose_norms_are_trained(name: str, dtype: str) -> None:
    compare(name, "norms only", dtype)


def compare(name: str, adapter: str, dtype: str) -> None:
    """All layers but the first, whose input has no gradient where the embedding is frozen."""
    model = real_model(name, adapter, dtype)
    layers = layers_of(model)
    everything = saved_bytes(model, layers, len(layers))
    first = saved_bytes(model, layers, 1)
    assert kept_bytes(name, adapter, dtype) == pytest.approx(everything - first, rel=TOLERANCE)


def adapter_of(name: str, adapter: str) -> AdapterSpec | None:
    """The adapter; beside experts it goes to mixers only: PEFT would wrap their parameters in its own way."""
    spec, model = ADAPTERS[adapter], read_config(VARIANTS[name], name, "test")
    if spec is None or spec.peft_type != "lora" or not model.num_experts:
        return spec
    weights = (w for w in weights_of(model) if w.role is Role.LINEAR)
    mixers = (model.family.layout.attention, model.family.layout.delta.block)
    return replace(spec, target_modules=tuple(sorted({w.module for w in weights if w.path.startswith(mixers)})))


# ── the estimate ────────────────────────────────────────────────────────────────────────────────────────────────────


def kept_bytes(name: str, adapter: str, dtype: str) -> int:
    """What the tape's layers keep, from the second on."""
    model = read_config(VARIANTS[name], name, "test")
    training = TrainingSpec(
        sequence_length=SEQUENCE, micro_batch_size=BATCH, gradient_checkpointing=False, dtype=DType(dtype),
        autocast=False, attention="eager", adapter=adapter_of(name, adapter),
    )  # fmt: skip
    kinds, segments, _ = _layers(step_of(model, training, Kernels("eager")))
    sizes = [size for kind in kinds[1:] for size in segments[kind].kept.values()]
    return sum((token + pair * SEQUENCE) * training.tokens + fixed for token, pair, fixed in sizes)


# ── the real model ──────────────────────────────────────────────────────────────────────────────────────────────────


def real_model(name: str, adapter: str, dtype: str) -> torch.nn.Module:
    torch.manual_seed(0)
    values = {"pad_token_id": 0} | {k: v for k, v in copy.deepcopy(VARIANTS[name]).items() if k != "model_type"}
    config = transformers.AutoConfig.for_model(VARIANTS[name]["model_type"], **values)
    config._attn_implementation = "eager"
    config.use_cache = False
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype)).train()
    spec = adapter_of(name, adapter)
    if spec is None:
        return model
    config = peft_config(spec)
    leave_out(model, config)
    return peft.get_peft_model(model, config, autocast_adapter_dtype=spec.dtype is DType.FLOAT32)


def peft_config(spec: AdapterSpec) -> peft.PeftConfig:
    if spec.peft_type == "ln_tuning":
        return peft.LNTuningConfig(task_type="CAUSAL_LM")
    targets = "all-linear" if spec.target_modules == ("all-linear",) else list(spec.target_modules or ())
    return peft.LoraConfig(r=RANK, target_modules=targets, lora_dropout=spec.dropout, task_type="CAUSAL_LM")


def layers_of(model: torch.nn.Module) -> torch.nn.ModuleList:
    """The decoder layers: the only list of modules directly under the base model."""
    return next(m for key, m in model.named_modules() if key.endswith(("layers", ".h")))


def saved_bytes(model: torch.nn.Module, layers: torch.nn.ModuleList, depth: int) -> int:
    """Bytes of the distinct storages that one forward pass saves, parameters and tables of cos and sin aside.

    Some attentions make tables of their own; those have no batch.
    """
    saved: list[torch.Tensor] = []  # held, so that no address is used twice
    shared: list[torch.Tensor] = list(model.parameters())
    rotary = [module for key, module in model.named_modules() if key.endswith("rotary_emb")]
    hooks = [module.register_forward_hook(lambda _, __, tables: shared.extend(tables)) for module in rotary]
    removed = [layers.pop(len(layers) - 1) for _ in range(len(layers) - depth)]
    tokens = torch.randint(1, 80, (BATCH, SEQUENCE))
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x):
        model(input_ids=tokens, labels=tokens)
    layers.extend(reversed(removed))
    for hook in hooks:
        hook.remove()
    numbers = [x for x in saved if x.is_floating_point() or x.dtype is torch.bool]
    numbers = [x for x in numbers if not (x.dim() == 4 and x.shape[0] == 1)]
    storages = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in numbers}
    for tensor in shared:
        storages.pop(tensor.untyped_storage().data_ptr(), None)
    return sum(storages.values())
