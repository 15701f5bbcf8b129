"""Adapters, gradients, optimizer states and buckets of one GPU of several."""

from __future__ import annotations

from peftbench.base.units import MIB
from peftbench.estimate.parts.optimizer import optimizer_bytes
from peftbench.estimate.parts.tensors import TensorGroup, total_bytes, total_numel
from peftbench.estimate.peft_types.tensors import frozen_on_card_bytes
from peftbench.estimate.sharding.split import (
    PERSISTENT,
    is_fsdp,
    is_zero,
    persistent_bytes,
    stored,
    trained_parts,
)
from peftbench.estimate.sharding.zero import buckets, has_master, step_temporaries_bytes
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.recipe import ParallelismSpec, TrainingSpec
from peftbench.memory import ALWAYS, STEP, TRAINING, Component, Part, Phase, exact

HALF = 2
"""Bytes of bfloat16 and float16, the param_dtype and reduce_dtype of mixed precision."""
BROADCAST_BYTES = 250 * MIB
"""DDP sends the first GPU's weights out in buffers of this size (_sync_module_states)."""


def own_trained(
    model: ModelSpec, training: TrainingSpec, tensors: tuple[TensorGroup, ...], on_cpu: bool
) -> list[Component]:
    """This GPU's adapters, optimizer states, gradients and buckets, of the `tensors` that all of them train."""
    parts = trained_parts(tensors, training)
    components = [
        *_adapter_part(model, training, tensors),
        *_buckets(model, tensors, training),
        _accumulated(tensors, training),
    ]
    if not training.parallelism.cpu_offload:
        components += [*_gradients(tensors, parts, training), *_optimizer(tensors, parts, training, on_cpu)]
    return [component for component in components if component.bytes]


def _adapter_part(model: ModelSpec, training: TrainingSpec, tensors: tuple[TensorGroup, ...]) -> list[Component]:
    """The adapter, or this GPU's part of what it trains; what it only keeps is on every GPU."""
    if training.adapter is None:
        return []
    tensors = stored(tensors, training)
    persistent = persistent_bytes(((t.tensor_numel, t.numel) for t in tensors), model, training)
    if training.parallelism.strategy == "zero3":
        tensors = tuple(part._replace(dtype=training.dtype) for part in trained_parts(tensors, training))
    elif training.parallelism.shards_weights:
        tensors = trained_parts(tensors, training)
    offloaded = training.parallelism.offloads_weights
    frozen = frozen_on_card_bytes(model, training.adapter, training.dtype, training.moves_model)
    size = frozen + (0 if offloaded else total_bytes(tensors))
    return [
        exact(Part.ADAPTERS, size, ALWAYS, f"{total_numel(tensors):,} parameters on each GPU"),
        exact(Part.ADAPTERS, persistent, ALWAYS, PERSISTENT),
    ]


def _optimizer(
    tensors: tuple[TensorGroup, ...], parts: tuple[TensorGroup, ...], training: TrainingSpec, on_cpu: bool
) -> list[Component]:
    """States of this GPU's part. DeepSpeed makes float32 copies in `initialize`, and float32 gradients while it steps.

    Source: DeepSpeedZeroOptimizer.step in deepspeed/runtime/zero/stage_1_and_2.py; stage 3 goes by sub-groups.
    """
    size = optimizer_bytes(parts, training.optimizer, training.loop == "trainer", on_cpu)
    share = _share(training.parallelism)
    temporary, master = size.step_temporary_bytes, 0
    if is_zero(training.parallelism):
        numel, gradients = total_numel(parts), gradient_part_bytes(tensors, parts, training)
        master = 4 * numel if has_master(training) else 0
        temporary = step_temporaries_bytes(tensors, numel, gradients, temporary, training)
    return [
        exact(Part.OPTIMIZER, master, ALWAYS, f"float32 copies of the trained parameters{share}"),
        exact(Part.OPTIMIZER, size.state_bytes, TRAINING, f"states of {training.optimizer}{share}"),
        exact(Part.OPTIMIZER_TEMPORARIES, temporary, STEP, f"{training.optimizer}'s, in its step{share}"),
    ]


def _gradients(
    tensors: tuple[TensorGroup, ...], parts: tuple[TensorGroup, ...], training: TrainingSpec
) -> list[Component]:
    """All of them, or this GPU's part: in ZeRO-3 a buffer that is always there."""
    size = gradient_part_bytes(tensors, parts, training)
    kept = training.zero_grad_keeps if training.defers_reduction else training.gradients_outlive_step
    phases = TRAINING if kept else STEP
    phases = ALWAYS if training.parallelism.strategy == "zero3" else phases
    share = _share(training.parallelism) if training.parallelism.shards_gradients else ""
    return [exact(Part.GRADIENTS, size, phases, f"{total_numel(tensors):,} trained parameters{share}")]


def _accumulated(tensors: tuple[TensorGroup, ...], training: TrainingSpec) -> Component:
    """Whole gradients as they wait in the forward passes; own_moments has those of backward."""
    because = f"{total_numel(tensors):,} trained parameters, whole until the last micro-batch"
    return exact(Part.ACCUMULATED, accumulated_bytes(tensors, training), frozenset({Phase.FORWARD}), because)


def accumulated_bytes(tensors: tuple[TensorGroup, ...], training: TrainingSpec) -> int:
    """Bytes of the whole gradients that wait for the last micro-batch, in the dtype that FSDP computes in.

    Accelerate reduces in the same dtype, so nothing is cast while they wait (to_accumulated_grad_if_needed in
    torch/distributed/fsdp/_fully_shard/_fsdp_param.py); CPU offload does not move them.
    """
    if not training.defers_reduction:
        return 0
    return HALF * total_numel(tensors) if training.autocast else total_bytes(tensors)


def gradient_part_bytes(
    tensors: tuple[TensorGroup, ...], parts: tuple[TensorGroup, ...], training: TrainingSpec
) -> int:
    """Bytes of the gradients that one GPU keeps until the step."""
    if not training.parallelism.shards_gradients:
        return total_bytes(tensors)
    if is_zero(training.parallelism):
        return total_numel(parts) * training.dtype.bytes
    return total_bytes(parts)


def _buckets(model: ModelSpec, tensors: tuple[TensorGroup, ...], training: TrainingSpec) -> list[Component]:
    """Buffers that gradients are copied into to be summed over the GPUs.

    DDP's buckets of 25 MiB are together a second copy of the gradients, unless gradient_as_bucket_view. Source:
    torch/csrc/distributed/c10d/reducer.cpp.
    """
    if is_zero(training.parallelism):
        return buckets(model, tensors, training)
    if training.parallelism.strategy != "ddp":
        return []
    because = "DDP's buckets of 25 MiB hold a second copy of all gradients"
    return [
        exact(Part.BUCKETS, BROADCAST_BYTES, frozenset({Phase.LOAD}), "DDP sends the first GPU's weights out"),
        exact(Part.BUCKETS, total_bytes(tensors), TRAINING, because),
    ]


def _share(parallelism: ParallelismSpec) -> str:
    return f", one of {parallelism.gpus} parts" if is_fsdp(parallelism) or is_zero(parallelism) else ""
