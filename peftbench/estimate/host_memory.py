"""What one GPU of several keeps in the host's memory under CPU offload."""

from __future__ import annotations

from dataclasses import replace

from peftbench.estimate.training import estimate_training
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.recipe.training import TrainingSpec
from peftbench.memory import MemoryProfile, Part, Phase

KEPT = frozenset((Part.WEIGHTS, Part.UNQUANTIZED, Part.ADAPTERS, Part.GRADIENTS, Part.OPTIMIZER))


def host_bytes(model: ModelSpec, training: TrainingSpec) -> int:
    """Bytes that the same recipe without offload would keep on the GPU at its optimizer step, and that are not there.

    ZeRO-1 sums whole gradients, but sends the host only this GPU's part of them, as ZeRO-2 does
    (copy_gradients_in_cpu in deepspeed/runtime/zero/stage_1_and_2.py).
    """
    parallelism = training.parallelism
    strategy = "zero2" if parallelism.strategy == "zero1" else parallelism.strategy
    on_gpu = replace(training, parallelism=replace(parallelism, cpu_offload=False, strategy=strategy))
    offloaded = replace(training, parallelism=replace(parallelism, strategy=strategy))
    return _kept_bytes(estimate_training(model, on_gpu)) - _kept_bytes(estimate_training(model, offloaded))


def _kept_bytes(profile: MemoryProfile) -> int:
    return sum(c.bytes for c in profile.alive_in(Phase.STEP) if c.part in KEPT)
