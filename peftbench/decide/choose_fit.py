"""The fastest recipe of each method that fits a number of cards: micro-batch, checkpointing and strategy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

from peftbench.decide.card import settle_training
from peftbench.decide.verdict import Fit, Verdict, judge
from peftbench.errors import SpecError
from peftbench.estimate.time import StepTime, step_time
from peftbench.estimate.training import estimate_training
from peftbench.memory import MemoryProfile
from peftbench.spec.gpu import GpuSpec
from peftbench.spec.model import ModelSpec
from peftbench.spec.parallelism import ParallelismSpec
from peftbench.spec.training import TrainingSpec

SHARDED = "fsdp"
COPIED = "ddp"


class Shape(NamedTuple):
    """Cards, all of a kind, that work on one model."""

    gpu: GpuSpec
    gpus: int
    nodes: int


class Setup(NamedTuple):
    """A recipe that fits a shape with its band, and how fast it is."""

    shape: Shape
    training: TrainingSpec
    verdict: Verdict
    step: StepTime


def fastest_setup(
    model: ModelSpec, training: TrainingSpec, shape: Shape, sequences: int, framework: str
) -> Setup | None:
    """The fastest way to train `sequences` an optimizer step on these cards; None where no recipe fits or is timed.

    Copies of the model come before shards of it, and keeping activations before recomputing them: what comes later
    is slower at the same micro-batch, so it is only tried where the one before does not reach the largest. Shards
    are not tried where copies fit with their activations: what the larger micro-batch gains, the gathering takes.
    """
    if sequences % shape.gpus:
        return None
    settled, _ = settle_training(model, training, shape.gpu)
    found: list[Setup] = []
    for parallelism in _strategies(shape):
        if any(not setup.training.gradient_checkpointing for setup in found):
            break
        least = replace(settled, parallelism=parallelism, gradient_checkpointing=True)
        if not _fits(model, replace(least, gradient_accumulation_steps=sequences // shape.gpus), shape.gpu):
            continue
        for checkpointing in (False, True):
            way = replace(least, gradient_checkpointing=checkpointing)
            setup = _largest(model, way, shape, sequences // shape.gpus, framework)
            found += [setup] if setup else []
            if setup and setup.training.gradient_accumulation_steps == 1:
                return max(found, key=_tokens_per_s)
    return max(found, key=_tokens_per_s, default=None)


def _tokens_per_s(setup: Setup) -> float:
    return setup.step.tokens_per_s


def _strategies(shape: Shape) -> Iterator[ParallelismSpec]:
    if shape.gpus == 1:
        yield ParallelismSpec()
        return
    for strategy in (COPIED, SHARDED):
        yield ParallelismSpec(gpus=shape.gpus, nodes=shape.nodes, strategy=strategy)


def _largest(model: ModelSpec, way: TrainingSpec, shape: Shape, sequences: int, framework: str) -> Setup | None:
    """The largest micro-batch that fits, among those that divide what each card has to do in a step."""
    sizes = [size for size in (1 << power for power in range(sequences.bit_length())) if sequences % size == 0]
    best: tuple[TrainingSpec, Verdict] | None = None
    while sizes:
        middle = 0 if best is None else len(sizes) // 2  # most shapes that fail do so at the smallest
        size = sizes[middle]
        tried = replace(way, micro_batch_size=size, gradient_accumulation_steps=sequences // size)
        verdict = _judged(model, tried, shape.gpu)
        if verdict is not None and verdict.fit is Fit.FITS:
            best, sizes = (tried, verdict), sizes[middle + 1 :]
        else:
            sizes = sizes[:middle]
    step = step_time(model, best[0], shape.gpu, framework) if best else None
    return Setup(shape, *best, step) if best and step else None


def _fits(model: ModelSpec, training: TrainingSpec, gpu: GpuSpec) -> bool:
    verdict = _judged(model, training, gpu)
    return verdict is not None and verdict.fit is Fit.FITS


def _judged(model: ModelSpec, training: TrainingSpec, gpu: GpuSpec) -> Verdict | None:
    """None for a recipe that cannot be on this card."""
    profile = _profile(model, training, _kind(gpu))
    return judge(profile, gpu) if profile else None


@lru_cache(maxsize=64)
def _kind(gpu: GpuSpec) -> GpuSpec:
    """The card without its names, memory and speed, which what a step needs does not depend on."""
    return replace(
        gpu, name="", product="", memory_bytes=0, memory_source="", nominal_gb=None, memory_bandwidth=None,
        tensor_flops=None, notes="",
    )  # fmt: skip


@lru_cache(maxsize=4096)
def _profile(model: ModelSpec, training: TrainingSpec, kind: GpuSpec) -> MemoryProfile | None:
    try:
        return estimate_training(model, training, kind)
    except SpecError:
        return None
