"""Ways to save memory, from free to costly: which options each would set, and its price."""

import math
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple

from peftbench.decide.recipe import LORA, value_of
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.recipe import DType, TrainingSpec

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


class Reach(Enum):
    """What a change touches, from the least to the most."""

    RUN = 1  # how the step is computed
    RESULT = 2  # what the training sees or how finely it learns
    METHOD = 3  # what is trained


class Saving(NamedTuple):
    """One way to save memory. `values` are its settings from mild to strong, none where it cannot help."""

    price: str
    values: Callable[[TrainingSpec, ModelSpec, GpuSpec], Sequence[Any]]
    options: Callable[[TrainingSpec, Any], Mapping[str, Any]]
    """What to type for one of the values."""
    reach: Reach = Reach.RUN


Condition = Callable[[TrainingSpec, ModelSpec, GpuSpec], bool]


def _to(
    name: str, value: Any, price: str, when: Condition = lambda t, m, g: True, reach: Reach = Reach.RUN
) -> Saving:
    """Set one option to one value, where it has another and that can matter. `value` may depend on recipe and card."""

    def values(training: TrainingSpec, model: ModelSpec, gpu: GpuSpec) -> Sequence[Any]:
        wanted = value(training, gpu) if callable(value) else value
        if wanted is None or value_of(training, name) in (wanted, None):
            return ()
        return (wanted,) if when(training, model, gpu) else ()

    return Saving(price, values, _set(name), reach)


def _set(name: str) -> Callable[[TrainingSpec, Any], Mapping[str, Any]]:
    return lambda training, value: {name: value}


def _smaller_batches(training: TrainingSpec, model: ModelSpec, gpu: GpuSpec) -> Sequence[int]:
    """Divisors of the micro-batch, the largest first, so that accumulation keeps the batch."""
    size = training.micro_batch_size
    small = [n for n in range(1, math.isqrt(size) + 1) if size % n == 0]
    return sorted({*small, *(size // n for n in small)} - {size}, reverse=True)


def _accumulate(training: TrainingSpec, micro_batch_size: int) -> Mapping[str, int]:
    passes = training.micro_batch_size // micro_batch_size * training.gradient_accumulation_steps
    return {"micro_batch_size": micro_batch_size, "gradient_accumulation_steps": passes}


def _ranks(training: TrainingSpec, model: ModelSpec, gpu: GpuSpec) -> Sequence[int]:
    adapter = training.adapter
    if adapter is None or adapter.peft_type != "lora" or adapter.r is None:
        return ()
    return [r for r in (128, 64, 32, 16, 8, 4) if r < adapter.r]


def _shorter(training: TrainingSpec, model: ModelSpec, gpu: GpuSpec) -> Sequence[int]:
    return range((training.sequence_length - 1) // SEQUENCE_STEP * SEQUENCE_STEP, 0, -SEQUENCE_STEP)


def _on_four_bit(training: TrainingSpec, model: ModelSpec, gpu: GpuSpec) -> Sequence[str]:
    adapter = training.adapter or LORA
    possible = training.quantization is None and adapter.peft_type in ON_BITSANDBYTES
    return (f"q{adapter.peft_type.replace('_', '-')}",) if possible else ()


def _stream_is_wide(training: TrainingSpec, model: ModelSpec, gpu: GpuSpec) -> bool:
    upcast = training.quantization is not None and training.quantization.upcast_unquantized
    return upcast or training.dtype is DType.FLOAT32


def _loads_in_parts(training: TrainingSpec, model: ModelSpec, gpu: GpuSpec) -> Sequence[str]:
    if not training.parallelism.shards_weights:
        return ()
    from peftbench.estimate.sharding.loading import may_load_in_parts  # one GPU does not pay for the import

    return ("sharded",) if may_load_in_parts(training) else ()


def _leaves_experts(training: TrainingSpec, model: ModelSpec, gpu: GpuSpec) -> bool:
    """Whether experts stay 16 bit only because transformers 5 fuses them."""
    quantized = training.quantization is not None and not training.quantization.scheme.reaches_experts
    return quantized and training.transformers == "5" and model.num_experts > 0 and bool(model.family.split_experts)


def _may_offload(training: TrainingSpec, model: ModelSpec, gpu: GpuSpec) -> bool:
    """What is sharded already; a GPU alone would have to be started as a group of one."""
    return training.parallelism.gpus > 1 and training.parallelism.shards_optimizer


SAVINGS: tuple[Saving, ...] = (
    _to("use_cache", False, "nothing: training never reads the cache"),
    _to("loop", "trainer", "nothing: the logits are not needed after the loss"),
    _to("zero_grad", "set-to-none", "nothing"),
    _to("use_reentrant", False, "nothing", lambda t, m, g: t.gradient_checkpointing),
    _to("attention", "sdpa", "nothing: the same in one kernel", lambda t, m, g: t.attention == "eager"),
    _to("optimizer", "adamw_torch_fused", "nothing", lambda t, m, g: t.optimizer == "adamw_torch"),
    _to("autocast", True, "matrix products in 16 bit", _stream_is_wide),
    _to("upcast_unquantized", False, "norms, embeddings and head in 16 bit"),
    _to("upcast_norms", False, "norms in 16 bit"),
    _to("transformers", "4.48", "an older transformers, in which bitsandbytes quantizes experts", _leaves_experts),
    _to("double_quant", True, "one more step to dequantize",
        lambda t, m, g: t.quantization is not None and "double_quant" in t.quantization.scheme.options),
    _to("loss", "liger", "needs liger-kernel", lambda t, m, g: m.family.liger),
    _to("fused_kernels", "liger", "needs liger-kernel", lambda t, m, g: m.family.liger),
    _to("loss", "chunked", "a loss over chunks of tokens, as torchtune has it",
        lambda t, m, g: t.loss != "liger" and not m.family.liger),
    _to("attention", "flash_attention_2", "needs flash-attn",
        lambda t, m, g: t.attention == "sdpa" and g.kernels.flash_attention_2),
    _to("sync_each_batch", True, "gradients are sent in every micro-batch",
        lambda t, m, g: t.defers_reduction),
    Saving("nothing: weights are read on the host, and each GPU is sent its part", _loads_in_parts, _set("loading")),
    Saving("the same batch in smaller passes", _smaller_batches, _accumulate),
    _to("gradient_checkpointing", True, "a second forward pass, about 30 % more time"),
    _to("optimizer", lambda t, g: EIGHT_BIT.get(t.optimizer), "needs bitsandbytes; optimizer states in 8 bit"),
    _to("optimizer", lambda t, g: PAGED.get(EIGHT_BIT.get(t.optimizer, t.optimizer)),
        "needs bitsandbytes; 8-bit states that may move to the host"),
    _to("cpu_offload", True, "slower steps, and the host's memory for what is sharded", _may_offload),
    # float16 cannot be trained under a GradScaler, so full fine-tuning needs bfloat16
    _to("dtype", lambda t, g: "bfloat16" if g.has_bfloat16 else "float16", "weights in 16 bit",
        lambda t, m, g: t.dtype is DType.FLOAT32 and (g.has_bfloat16 or t.adapter is not None), Reach.RESULT),
    Saving("a smaller batch", _smaller_batches, _set("micro_batch_size"), Reach.RESULT),
    _to("adapter_dtype", "bfloat16", "adapter and its updates in 16 bit",
        lambda t, m, g: value_of(t, "adapter_dtype") == "float32" and g.has_bfloat16, Reach.RESULT),
    Saving("fewer trained parameters", _ranks, _set("r"), Reach.RESULT),
    Saving("a shorter context", _shorter, _set("sequence_length"), Reach.RESULT),
    _to("quant_type", "nf4", "4-bit base weights",
        lambda t, m, g: t.quantization is not None and (t.quantization.bits or 0) > 4, Reach.RESULT),
    Saving("trains an adapter instead of the model",
           lambda t, m, g: () if t.adapter else ("lora",), _set("method"), Reach.METHOD),
    Saving("trains an adapter on 4-bit weights, at slower steps", _on_four_bit, _set("method"), Reach.METHOD),
)  # fmt: skip
"""30 % for checkpointing: 29 s became 38 s in PEFT's method comparison (peft#3157)."""
