"""The ladder of changes that save memory, from free to costly: what each would set, and its price."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import Enum
from typing import Any, NamedTuple

from peftbench.decide.recipe import LORA, changed, quantization_for, value_of
from peftbench.estimate.parts.card import traits_of
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.recipe.dtype import DType
from peftbench.inputs.recipe.training import TrainingSpec

SEQUENCE_STEP = 128
"""Sequence lengths are suggested in multiples of this."""

EIGHT_BIT = {
    "adamw_torch": "adamw_bnb_8bit",
    "adamw_torch_fused": "adamw_bnb_8bit",
    "paged_adamw_32bit": "adamw_bnb_8bit",
    "ademamix": "ademamix_8bit",
    "paged_ademamix_32bit": "ademamix_8bit",
    "lion_32bit": "lion_8bit",
    "paged_lion_32bit": "lion_8bit",
    "rmsprop": "rmsprop_bnb_8bit",
    "rmsprop_bnb": "rmsprop_bnb_8bit",
    "rmsprop_bnb_32bit": "rmsprop_bnb_8bit",
}
"""The same optimizer with 8-bit states."""

PAGED = {
    "adamw_bnb_8bit": "paged_adamw_8bit",
    "adamw_8bit": "paged_adamw_8bit",
    "ademamix_8bit": "paged_ademamix_8bit",
    "lion_8bit": "paged_lion_8bit",
}
"""… and with those in managed memory."""

ON_BITSANDBYTES = frozenset(("lora", "adalora", "hira", "ia3", "pvera", "randlora", "road"))
"""Types with layers for a bitsandbytes base. Source: peft/tuners/<type>/bnb.py, 0.21."""

Values = Callable[[ModelSpec, TrainingSpec, GpuSpec], Sequence[Any]]


class Reach(Enum):
    """What a change touches, from the least to the most."""

    RUN = 1  # how the step is computed
    RESULT = 2  # what the training sees or how finely it learns
    METHOD = 3  # what is trained


class Rung(NamedTuple):
    """One way to save memory. `values` are its settings from mild to strong, none when it is on already."""

    price: str
    values: Values
    apply: Callable[[TrainingSpec, Any], TrainingSpec]
    reach: Reach = Reach.RUN


def _set(name: str) -> Callable[[TrainingSpec, Any], TrainingSpec]:
    """Give an option of the recipe, its adapter, quantization or GPUs another value."""
    return lambda training, value: changed(training, name, value)


def _switch(name: str, value: Any, price: str, when: Callable[[TrainingSpec], bool] = lambda _: True) -> Rung:
    """A rung with one setting, for recipes in which it can matter."""

    def values(model: ModelSpec, training: TrainingSpec, gpu: GpuSpec) -> Sequence[Any]:
        return (value,) if value_of(training, name) not in (value, None) and when(training) else ()

    return Rung(price, values, _set(name))


# ── values of the rungs that are more than a switch ─────────────────────────────────────────────────────────


def _losses(model: ModelSpec, training: TrainingSpec, gpu: GpuSpec) -> Sequence[str]:
    return ("liger",) if training.loss != "liger" and model.family.liger else ()


def _chunked_loss(model: ModelSpec, training: TrainingSpec, gpu: GpuSpec) -> Sequence[str]:
    unchunked = training.loss not in ("liger", "chunked")
    return ("chunked",) if unchunked and not model.family.liger else ()


def _fused_kernels(model: ModelSpec, training: TrainingSpec, gpu: GpuSpec) -> Sequence[str]:
    return ("liger",) if training.fused_kernels != "liger" and model.family.liger else ()


def _flash(model: ModelSpec, training: TrainingSpec, gpu: GpuSpec) -> Sequence[str]:
    possible = training.attention == "sdpa" and traits_of(gpu).flash
    return ("flash_attention_2",) if possible else ()


def _smaller_batches(model: ModelSpec, training: TrainingSpec, gpu: GpuSpec) -> Sequence[int]:
    """Divisors of the micro-batch, the largest first, so that accumulation keeps the batch."""
    size = training.micro_batch_size
    return [n for n in range(size // 2, 0, -1) if size % n == 0]


def _accumulate(training: TrainingSpec, micro_batch_size: int) -> TrainingSpec:
    passes = training.micro_batch_size // micro_batch_size * training.gradient_accumulation_steps
    return replace(training, micro_batch_size=micro_batch_size, gradient_accumulation_steps=passes)


def _eight_bit(model: ModelSpec, training: TrainingSpec, gpu: GpuSpec) -> Sequence[str]:
    return (EIGHT_BIT[training.optimizer],) if training.optimizer in EIGHT_BIT else ()


def _paged(model: ModelSpec, training: TrainingSpec, gpu: GpuSpec) -> Sequence[str]:
    eight_bit = EIGHT_BIT.get(training.optimizer, training.optimizer)
    return (PAGED[eight_bit],) if eight_bit in PAGED else ()


def _half_weights(model: ModelSpec, training: TrainingSpec, gpu: GpuSpec) -> Sequence[DType]:
    """float16 cannot be trained under a GradScaler, so full fine-tuning needs bfloat16."""
    possible = gpu.has_bfloat16 or training.adapter is not None
    return (DType.BFLOAT16,) if training.dtype is DType.FLOAT32 and possible else ()


def _half_adapter(model: ModelSpec, training: TrainingSpec, gpu: GpuSpec) -> Sequence[DType]:
    adapter = training.adapter
    wide = adapter is not None and adapter.dtype is DType.FLOAT32
    return (DType.BFLOAT16,) if wide and gpu.has_bfloat16 else ()


def _ranks(model: ModelSpec, training: TrainingSpec, gpu: GpuSpec) -> Sequence[int]:
    adapter = training.adapter
    if adapter is None or adapter.peft_type != "lora" or adapter.r is None:
        return ()
    return [r for r in (128, 64, 32, 16, 8, 4) if r < adapter.r]


def _shorter(model: ModelSpec, training: TrainingSpec, gpu: GpuSpec) -> Sequence[int]:
    return range((training.sequence_length - 1) // SEQUENCE_STEP * SEQUENCE_STEP, 0, -SEQUENCE_STEP)


def _double_quant(model: ModelSpec, training: TrainingSpec, gpu: GpuSpec) -> Sequence[bool]:
    quantization = training.quantization
    possible = quantization is not None and "double_quant" in quantization.scheme.options
    return (True,) if quantization and possible and not quantization.double_quant else ()


def _four_bit(model: ModelSpec, training: TrainingSpec, gpu: GpuSpec) -> Sequence[str]:
    return ("nf4",) if training.quantization and training.quantization.scheme.bits > 4 else ()


def _lora(model: ModelSpec, training: TrainingSpec, gpu: GpuSpec) -> Sequence[str]:
    return ("lora",) if training.adapter is None else ()


def _qlora(model: ModelSpec, training: TrainingSpec, gpu: GpuSpec) -> Sequence[str]:
    adapter = training.adapter or LORA
    possible = training.quantization is None and adapter.peft_type in ON_BITSANDBYTES
    return ("qlora",) if possible else ()


def _method(training: TrainingSpec, method: str) -> TrainingSpec:
    quantization = quantization_for(training.dtype) if method == "qlora" else None
    return replace(training, adapter=training.adapter or LORA, quantization=quantization)


def _offload(model: ModelSpec, training: TrainingSpec, gpu: GpuSpec) -> Sequence[bool]:
    """For what is sharded already; a GPU alone would have to be started as a group of one."""
    parallelism = training.parallelism
    return (True,) if parallelism.gpus > 1 and parallelism.shards_optimizer and not parallelism.cpu_offload else ()


def _stream_is_wide(training: TrainingSpec) -> bool:
    upcast = training.quantization is not None and training.quantization.upcast_unquantized
    return upcast or training.dtype is DType.FLOAT32


LADDER: tuple[Rung, ...] = (
    _switch("use_cache", False, "nothing: training never reads the cache"),
    _switch("loop", "trainer", "nothing: the logits are not needed after the loss"),
    _switch("zero_grad", "set-to-none", "nothing"),
    _switch("use_reentrant", False, "nothing", lambda t: t.gradient_checkpointing),
    _switch("attention", "sdpa", "nothing: the same in one kernel", lambda t: t.attention == "eager"),
    _switch("optimizer", "adamw_torch_fused", "nothing", lambda t: t.optimizer == "adamw_torch"),
    _switch("autocast", True, "matrix products in 16 bit", _stream_is_wide),
    _switch("upcast_unquantized", False, "norms, embeddings and head in 16 bit"),
    _switch("upcast_norms", False, "norms in 16 bit"),
    Rung("one more step to dequantize", _double_quant, _set("double_quant")),
    Rung("needs liger-kernel", _losses, _set("loss")),
    Rung("needs liger-kernel", _fused_kernels, _set("fused_kernels")),
    Rung("a loss over chunks of tokens, as torchtune has it", _chunked_loss, _set("loss")),
    Rung("needs flash-attn", _flash, _set("attention")),
    Rung("the same batch in smaller passes", _smaller_batches, _accumulate),
    _switch("gradient_checkpointing", True, "a second forward pass, about 30 % more time"),
    Rung("needs bitsandbytes; optimizer states in 8 bit", _eight_bit, _set("optimizer")),
    Rung("needs bitsandbytes; 8-bit states that may move to the host", _paged, _set("optimizer")),
    Rung("slower steps, and the host's memory for what is sharded", _offload, _set("cpu_offload")),
    Rung("weights in 16 bit", _half_weights, _set("dtype"), Reach.RESULT),
    Rung("a smaller batch", _smaller_batches, _set("micro_batch_size"), Reach.RESULT),
    Rung("adapter and its updates in 16 bit", _half_adapter, _set("adapter_dtype"), Reach.RESULT),
    Rung("fewer trained parameters", _ranks, _set("r"), Reach.RESULT),
    Rung("a shorter context", _shorter, _set("sequence_length"), Reach.RESULT),
    Rung("4-bit base weights", _four_bit, _set("quant_type"), Reach.RESULT),
    Rung("trains an adapter instead of the model", _lora, _method, Reach.METHOD),
    Rung("trains an adapter on 4-bit weights, at slower steps", _qlora, _method, Reach.METHOD),
)
"""30 % for checkpointing: 29 s became 38 s in PEFT's method comparison (peft#3157)."""
