"""What a strategy for several GPUs makes of a recipe: the dtypes it trains in, and each GPU's part of every tensor."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from math import prod

from peftbench.base.errors import SpecError
from peftbench.estimate.parts.base_weights import quantized_weights, weight_bytes
from peftbench.estimate.parts.optimizer import RULES, BitsandbytesRule
from peftbench.estimate.parts.tensors import TensorGroup
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.model.weight import Role, Weight
from peftbench.inputs.model.weights import weights_of
from peftbench.inputs.recipe import DType, ParallelismSpec, QuantizationSpec, TrainingSpec
from peftbench.memory import Component, Part, Phase, exact

PERSISTENT_NUMEL = 100_000
"""ZeRO-3 never gives up the whole of parameters up to this size: stage3_param_persistence_threshold. "auto" is ten
times the hidden size."""
PERSISTENT = "small parameters, whole on every GPU"
ZERO_ALIGNMENT = 2
"""ZeRO-1 and 2 pad the flat parameters to a multiple of this and the GPUs: nccl_start_alignment_factor."""


def is_fsdp(parallelism: ParallelismSpec) -> bool:
    """FSDP, whatever it shards."""
    return parallelism.strategy in ("fsdp", "fsdp-grad-op")


def is_fsdp2(training: TrainingSpec) -> bool:
    """FSDP2, the one of transformers 5."""
    return is_fsdp(training.parallelism) and not flat_parameters(training)


def is_zero(parallelism: ParallelismSpec) -> bool:
    """One of DeepSpeed's stages."""
    return parallelism.strategy in ("zero1", "zero2", "zero3")


def _check_sharding(training: TrainingSpec) -> None:
    """Raise SpecError for what bitsandbytes cannot do with parts of tensors.

    FSDP2's parts are DTensors, for which its optimizers' operators have no strategy; the scales of int8 weights hang on
    the tensor object (Int8Params.CB), which sharding replaces. tests/oracles/sharding/test_refusals.py shows both.
    """
    parallelism, quantization = training.parallelism, training.quantization
    if parallelism.shards_weights and quantization is not None and quantization.scheme.unshardable:
        scheme = quantization.scheme
        what = f"{parallelism.strategy} cannot shard {quantization.bits}-bit weights: {scheme.unshardable}."
        raise SpecError(what, "Use --quant-type nf4, or --parallel ddp, zero1 or zero2.")
    if parallelism.loading == "sharded" and is_zero(parallelism) and quantization is not None:
        what = f"{parallelism.strategy} loads quantized models whole: zero.Init leaves them out."
        raise SpecError(what, "Leave out --loading, or use --parallel fsdp.")
    if not is_fsdp(parallelism) or flat_parameters(training):
        return
    if isinstance(RULES.get(training.optimizer), BitsandbytesRule):
        what = f"{training.optimizer} does not run under FSDP2: bitsandbytes has no operators for DTensors."
        raise SpecError(what, "Use --optimizer adamw_torch_fused, or --parallel zero2 or zero3.")


def flat_parameters(training: TrainingSpec) -> bool:
    """FSDP1, the one of transformers 4: a unit's parameters are one flat tensor, cut wherever the part ends."""
    return is_fsdp(training.parallelism) and training.transformers != "5"


def cuts_flat(training: TrainingSpec) -> bool:
    """Whether tensors are cut wherever a GPU's part ends: by ZeRO-3 and FSDP1; FSDP2 cuts between rows."""
    return not is_fsdp(training.parallelism) or flat_parameters(training)


@lru_cache(maxsize=4096)
def as_run(training: TrainingSpec) -> TrainingSpec:
    """The recipe in the dtypes that the strategy really uses. Raises SpecError for what cannot be shared.

    DeepSpeed casts the whole module, adapters and upcast norms included (engine._configure_distributed_model). A unit
    of FSDP1 has one dtype, so norms that were cast to float32 come back as that (MixedPrecision.param_dtype).
    """
    _check_sharding(training)
    adapter, quantization = training.adapter, training.quantization
    if is_zero(training.parallelism) and adapter is not None:
        adapter = replace(adapter, dtype=training.dtype)
    if training.parallelism.strategy != "ddp" and not is_fsdp2(training):
        quantization = _in_one_dtype(quantization)
    return replace(training, adapter=adapter, quantization=quantization)


def _in_one_dtype(quantization: QuantizationSpec | None) -> QuantizationSpec | None:
    return quantization and replace(quantization, upcast_norms=False, upcast_unquantized=False)


def computing(training: TrainingSpec) -> TrainingSpec:
    """The recipe in the dtypes of a step. Under FSDP2 mixed precision is a cast of weights as they are gathered.

    Accelerate wraps the model in autocast for FSDP1 only: _prepare_fsdp2 and prepare_model in its accelerator.py.
    """
    if not is_fsdp2(training) or not training.autocast:
        return training
    half = training.computes_in(has_bfloat16=True)  # either is of two bytes
    adapter = training.adapter and replace(training.adapter, dtype=half)
    return replace(
        training, dtype=half, autocast=False, adapter=adapter, quantization=_in_one_dtype(training.quantization)
    )  # fmt: skip


def stored_dtype(training: TrainingSpec, dtype: DType) -> DType:
    """The dtype of a trained tensor between steps: accelerate casts those of FSDP to float32 under mixed precision.

    Source: fsdp2_prepare_model in accelerate/utils/fsdp_utils.py, and prepare_model in accelerator.py for FSDP1.
    """
    upcasts = is_fsdp(training.parallelism) and training.autocast and training.quantization is None
    return DType.FLOAT32 if upcasts else dtype


def gathered(tensors: tuple[TensorGroup, ...], training: TrainingSpec) -> tuple[TensorGroup, ...]:
    """Trained tensors in the dtype that a unit gathers them in, which is also that of their whole gradients."""
    computed = computing(training)
    return tensors if computed is training else tuple(t._replace(dtype=computed.dtype) for t in tensors)


def part_of(shape: tuple[int, ...], gpus: int, flat: bool) -> tuple[int, ...]:
    """The shape of the largest part of a tensor, the first GPU's; `flat` is what cuts_flat says.

    FSDP2 cuts dimension 0 into equal chunks, the last ones shorter, and pads each to the first (FSDPParam in
    torch/distributed/fsdp/_fully_shard/_fsdp_param.py).
    """
    return (-(-prod(shape) // gpus),) if flat else (-(-shape[0] // gpus), *shape[1:])


def stored(tensors: tuple[TensorGroup, ...], training: TrainingSpec) -> tuple[TensorGroup, ...]:
    """Trained tensors in the dtype that they have between steps."""
    if all(stored_dtype(training, tensor.dtype) is tensor.dtype for tensor in tensors):
        return tensors
    return tuple(tensor._replace(dtype=stored_dtype(training, tensor.dtype)) for tensor in tensors)


def trained_parts(tensors: tuple[TensorGroup, ...], training: TrainingSpec) -> tuple[TensorGroup, ...]:
    """The tensors that one GPU's optimizer updates."""
    return _parts(stored(tensors, training), training.parallelism, cuts_flat(training))


@lru_cache(maxsize=4096)
def _parts(tensors: tuple[TensorGroup, ...], parallelism: ParallelismSpec, flat: bool) -> tuple[TensorGroup, ...]:
    """ZeRO's stages 1 and 2 flatten all parameters into one float32 tensor and deal it out; stage 3 deals out each
    parameter and joins the parts.
    """
    gpus = parallelism.gpus
    if is_zero(parallelism):
        if parallelism.strategy == "zero3":
            numel = sum(t.count * -(-t.tensor_numel // gpus) for t in tensors)
        else:
            numel = ZERO_ALIGNMENT * -(-sum(t.numel for t in tensors) // (ZERO_ALIGNMENT * gpus))
        return (TensorGroup("flat", (numel,), 1, DType.FLOAT32),)
    if is_fsdp(parallelism) and gpus > 1:
        return tuple(t._replace(shape=part_of(t.shape, gpus, flat)) for t in tensors)
    return tensors


# ── the base model ──────────────────────────────────────────────────────────────────────────────────────────────────


@lru_cache(maxsize=4096)
def sharded_weights(model: ModelSpec, training: TrainingSpec, phases: frozenset[Phase]) -> tuple[Component, ...]:
    """One GPU's part of the base model; nothing of it is there under CPU offload.

    4-bit codes are cut like any tensor when bnb_4bit_quant_storage is a floating dtype; what dequantizes them
    (QuantState) is no parameter, so every GPU has all of it.
    """
    gpus, sizes = training.parallelism.gpus, weight_bytes(model, training.dtype, training.quantization)
    quantized = quantized_weights(model, training.quantization)
    rest = [weight for weight in weights_of(model) if weight not in set(quantized)]
    rest_bytes = sum(w.count * rest_part_bytes(w, training) for w in rest)
    codes_bytes = sum(w.count * code_part_bytes(w, training) for w in quantized)
    because = f"one of {gpus} parts of each parameter"
    if training.parallelism.offloads_weights:
        rest_bytes = codes_bytes = 0
    name = Part.UNQUANTIZED if quantized else Part.WEIGHTS
    components = (
        exact(Part.WEIGHTS, codes_bytes, phases, f"codes of the linear layers: {because}"),
        exact(Part.QUANTIZATION_CONSTANTS, sizes.constants_bytes, phases, "constants of all layers, on every GPU"),
        exact(name, rest_bytes, phases, because),
        exact(Part.WEIGHTS, sizes.buffers_bytes, phases, "buffers, on every GPU"),
        exact(Part.WEIGHTS, persistent_bytes(((w.numel, w.total) for w in rest), model, training), phases, PERSISTENT),
    )
    return tuple(component for component in components if component.bytes)


def rest_part_bytes(weight: Weight, training: TrainingSpec) -> int:
    """Bytes of one GPU's part of a weight that is not quantized."""
    numel = prod(part_of(weight.shape, training.parallelism.gpus, cuts_flat(training)))
    return numel * rest_itemsize(weight, training)


def rest_itemsize(weight: Weight, training: TrainingSpec) -> int:
    """Bytes of an element of a weight that is not quantized, as it is stored."""
    quantization = training.quantization
    if training.adapter is None:
        return stored_dtype(training, training.dtype).bytes
    upcast = quantization is not None and _is_upcast(weight, quantization)
    return (DType.FLOAT32 if upcast else training.dtype).bytes


def _is_upcast(weight: Weight, quantization: QuantizationSpec) -> bool:
    return quantization.upcast_unquantized or (quantization.upcast_norms and weight.role is Role.NORM)


def code_part_bytes(weight: Weight, training: TrainingSpec) -> int:
    """Bytes of one GPU's part of a quantized weight: a column of numbers of the storage dtype."""
    quantization = training.quantization
    assert quantization is not None
    itemsize = quantization.scheme.written_itemsize(quantization) or 1
    whole = quantization.code_bytes(weight.numel)
    return prod(part_of((-(-whole // itemsize), 1), training.parallelism.gpus, cuts_flat(training))) * itemsize


def persistent_bytes(sizes: Iterable[tuple[int, int]], model: ModelSpec, training: TrainingSpec) -> int:
    """Bytes of the parameters that ZeRO-3 keeps whole beside their parts; a size is numel of each and of all."""
    if training.parallelism.strategy != "zero3":
        return 0
    most = PERSISTENT_NUMEL if training.parallelism.reduce_bucket_size else 10 * model.hidden_size
    return sum(total for each, total in sizes if each <= most) * training.dtype.bytes
