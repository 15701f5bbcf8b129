"""What several GPUs change of a training step's memory: one GPU's weights, adapters, states and moments.

`estimate.training` loads it for recipes of several GPUs only: a plan for one is asked for far more often.
"""

from __future__ import annotations

from dataclasses import replace

from peftbench.estimate.forward.moments import StepMoments
from peftbench.estimate.parts.tensors import TensorGroup, total_bytes, total_numel
from peftbench.estimate.peft_types.tensors import frozen_bytes
from peftbench.estimate.sharding.split import (
    PERSISTENT,
    as_run,
    check_sharding,
    persistent_bytes,
    sharded_weights,
    stored,
    trained_parts,
)
from peftbench.estimate.sharding.state import gradient_part_bytes, trained_state
from peftbench.estimate.sharding.step import sharded_step
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.recipe.training import TrainingSpec
from peftbench.memory import Component, Part, Phase, exact

__all__ = ["as_one_of_several", "own_moments", "own_trained", "sharded_weights"]

ALWAYS = frozenset({Phase.LOAD, Phase.FORWARD, Phase.BACKWARD, Phase.STEP})


def as_one_of_several(training: TrainingSpec) -> TrainingSpec:
    """The recipe in the dtypes that the strategy uses. Raises SpecError for what cannot be shared."""
    check_sharding(training)
    return as_run(training)


def own_trained(
    model: ModelSpec, training: TrainingSpec, tensors: tuple[TensorGroup, ...], on_cpu: bool
) -> list[Component]:
    """This GPU's adapters, optimizer states and gradients, of the `tensors` that all of them train."""
    return [*_adapter_part(model, training, tensors), *trained_state(tensors, training, on_cpu)]


def _adapter_part(
    model: ModelSpec, training: TrainingSpec, tensors: tuple[TensorGroup, ...]
) -> list[Component]:
    """The adapter, or this GPU's part of what it trains; what it only keeps is on every GPU."""
    if training.adapter is None:
        return []
    tensors = stored(tensors, training)
    persistent = persistent_bytes(((t.tensor_numel, t.numel) for t in tensors), training)
    if training.parallelism.strategy == "zero3":
        dtype = training.dtype
        tensors = tuple(replace(part, dtype=dtype) for part in trained_parts(tensors, training))
    elif training.parallelism.shards_weights:
        tensors = trained_parts(tensors, training)
    offloaded = training.parallelism.cpu_offload and training.parallelism.shards_weights
    size = frozen_bytes(model, training.adapter, training.dtype) + (0 if offloaded else total_bytes(tensors))
    parts = (
        exact(Part.ADAPTERS, size, ALWAYS, f"{total_numel(tensors):,} parameters on each GPU"),
        exact(Part.ADAPTERS, persistent, ALWAYS, PERSISTENT),
    )
    return [part for part in parts if part.bytes]


def own_moments(
    step: StepMoments, model: ModelSpec, training: TrainingSpec, tensors: tuple[TensorGroup, ...]
) -> StepMoments:
    """The moments of one GPU; what is gathered and dealt out does not depend on the tokens."""
    kept = gradient_part_bytes(tensors, trained_parts(tensors, training), training)
    return sharded_step(step, model, training, tensors, kept)
