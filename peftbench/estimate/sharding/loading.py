"""What a GPU holds while sharded weights are loaded: before the first step, and what that leaves reserved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from peftbench.estimate.parts.base_weights import quantized_weights, weight_bytes
from peftbench.estimate.parts.tensors import TensorGroup, total_bytes
from peftbench.estimate.sharding.split import code_part_bytes, flat_parameters, is_fsdp, is_zero, stored, stored_dtype
from peftbench.estimate.sharding.units import units_of
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.model.weights import weights_of
from peftbench.inputs.recipe import TrainingSpec
from peftbench.memory import TRAINING, Basis, Component, Part, Phase, modelled

LOADING_ERROR = 0.02
"""Relative error of what is there while weights are loaded: buffers of single tensors are left out."""
_MODEL = (Part.WEIGHTS, Part.QUANTIZATION_CONSTANTS, Part.UNQUANTIZED, Part.EXPERTS, Part.ADAPTERS)


def loads_whole(training: TrainingSpec) -> bool:
    """Whether each GPU holds the whole model before it cuts it. Where the recipe does not say: as the libraries do.

    ZeRO-3: zero.Init cuts each parameter as it is made, but from_pretrained leaves it out for quantized models, and
    deepspeed.initialize then moves the whole model to each GPU (get_init_context in transformers/modeling_utils.py,
    _configure_distributed_model in deepspeed/runtime/engine.py). FSDP: weights are read on the host and come a unit at
    a time. Only bitsandbytes quantizes on the GPU: transformers 4 takes the codes back to the host
    (cpu_ram_efficient_loading), transformers 5 leaves all of them on each GPU (update_device_map in
    quantizers/quantizer_bnb_4bit.py), which accelerate 1.15 names as a spike (fsdp2_prepare_model).
    """
    parallelism, quantization = training.parallelism, training.quantization
    if parallelism.loading is not None or not parallelism.shards_weights or quantization is None:
        return parallelism.loading == "whole" and parallelism.shards_weights
    return is_zero(parallelism) or not (flat_parameters(training) or quantization.scheme.checkpoint)


def in_parts(training: TrainingSpec) -> TrainingSpec | None:
    """The recipe that is loaded in parts, where it is loaded whole by habit alone; else None."""
    if not may_load_in_parts(training):
        return None
    return replace(training, parallelism=replace(training.parallelism, loading="sharded"))


def may_load_in_parts(training: TrainingSpec) -> bool:
    """Whether each GPU holds the whole model first, and need not; ZeRO-3 knows no other way for quantized ones."""
    never = is_zero(training.parallelism) and training.quantization is not None
    return training.parallelism.gpus > 1 and loads_whole(training) and not never


def loading(
    components: Sequence[Component], model: ModelSpec, training: TrainingSpec, tensors: tuple[TensorGroup, ...]
) -> list[Component]:
    """The largest moment of loading, beyond what `components` have in that phase; `tensors` are those that are trained.

    Whole models: FSDP2 keeps all of it until every part is cut (accelerate's `original_sd`); FSDP1 has a flat copy of
    one unit beside it, as it lets go of each (FlatParamHandle in torch/distributed/fsdp/_flat_param.py); ZeRO-3 lets
    go of each parameter. In parts: one unit, which FSDP1 has twice; one parameter under ZeRO-3.
    """
    if not training.parallelism.shards_weights:
        return []
    present = [c for c in components if Phase.LOAD in c.phases]
    kept = sum(c.bytes for c in present if c.part in _MODEL)
    whole, because = loads_whole(training), "what is loaded at a time, before it is cut"
    moment = kept + _in_transit_bytes(model, training)
    if whole:
        moment = _whole_moment_bytes(kept, model, training, tensors)
        because = "the whole model on each GPU, before it is cut"
    size = moment - sum(c.bytes for c in present)
    return [modelled(Part.LOADING, size, frozenset({Phase.LOAD}), because, LOADING_ERROR)] if size > 0 else []


def _whole_moment_bytes(
    kept: int, model: ModelSpec, training: TrainingSpec, tensors: tuple[TensorGroup, ...]
) -> int:
    """All of loading's bytes where each GPU has the whole model, and `kept` bytes of it in the end."""
    sizes = weight_bytes(model, training.dtype, training.quantization)
    upcast = is_fsdp(training.parallelism) and not flat_parameters(training)
    trained = total_bytes(stored(tensors, training) if upcast else tensors)
    whole = trained if training.adapter is None else sizes.total_bytes + trained
    if upcast:
        return whole + kept - sizes.constants_bytes  # constants are not cut: the same tensors in both
    return whole + (units_of(model, training, 0).layer if is_fsdp(training.parallelism) else 0)


def _in_transit_bytes(model: ModelSpec, training: TrainingSpec) -> int:
    """Bytes of what is loaded at a time, where no GPU has more than that beside its part."""
    if is_zero(training.parallelism):
        return max(w.numel for w in weights_of(model)) * training.dtype.bytes
    if flat_parameters(training):
        units = units_of(model, training, 0)
        return 2 * max(units.layer, units.embedding + units.head)
    dtype = stored_dtype(training, training.dtype) if training.adapter is None else training.dtype
    units = units_of(model, replace(training, dtype=dtype), 0)
    tables = units.embedding + units.head  # fsdp2_prepare_model keeps both to its end
    cut = units.head // training.parallelism.gpus if training.parallelism.cpu_offload else 0
    return max(units.layer, tables + cut)


def loaded_slack(model: ModelSpec, training: TrainingSpec) -> list[Component]:
    """What loading the whole model leaves reserved under FSDP1: segments of one quantized matrix each.

    They are free, but too small for what comes later. The allocator gives them back before it fails, so the band
    begins at none. DeepSpeed empties the cache (`defragment` in deepspeed/runtime/zero/utils.py). Of FSDP2 no run was
    measured: the peak of loading itself stands for it.
    """
    if training.quantization is None or not flat_parameters(training) or not loads_whole(training):
        return []
    parts = sum(w.count * code_part_bytes(w, training) for w in quantized_weights(model, training.quantization))
    size = weight_bytes(model, training.dtype, training.quantization).quantized_bytes - parts
    because = "segments of the whole quantized weights, which loading left"
    return [Component(Part.SLACK, size, Basis.MODELLED, TRAINING, because, 0, size)]
