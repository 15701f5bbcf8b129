"""The fastest recipe of each method that fits a number of cards: strategy, micro-batch and checkpointing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

from peftbench.base.errors import SpecError
from peftbench.decide.card import settle_training
from peftbench.decide.plan.largest import beside_allocator, within
from peftbench.decide.verdict import Fit, Verdict, judge
from peftbench.estimate.forward.kernels import as_needed
from peftbench.estimate.parts.card import traits_of
from peftbench.estimate.sharding.loading import in_parts
from peftbench.estimate.sharding.split import is_fsdp
from peftbench.estimate.time.step import StepTime, step_time
from peftbench.estimate.training import host_bytes, least_reserved, reserved_components
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.recipe import ParallelismSpec, TrainingSpec
from peftbench.memory import MemoryProfile

COPIED = "ddp"
SHARDED = "fsdp"
GATHERED_ONCE = "fsdp-grad-op"
"""Only tried without an adapter: there it saves up to a fifth of a step, with one a hundredth."""
LAST = "zero3"
"""Only tried where none of the others fits: DeepSpeed's hooks take time, but it lets go of some weights that FSDP keeps
gathered. A test compares the search with trying everything."""
STRATEGIES = (COPIED, SHARDED, GATHERED_ONCE, LAST)


class Shape(NamedTuple):
    """Cards, all of a kind, that work on one model."""

    gpu: GpuSpec
    gpus: int
    nodes: int


class Sharing(NamedTuple):
    """How several cards may share the model."""

    strategy: str | None = None
    """None: whichever is the fastest of STRATEGIES."""
    cpu_offload: bool = False
    """Also with what is sharded in the host's memory; how much the host has is not known, so it has to be asked for."""


ANY_SHARING = Sharing()


class Setup(NamedTuple):
    """A recipe that fits a shape with its band, and how fast it is."""

    shape: Shape
    training: TrainingSpec
    verdict: Verdict
    step: StepTime
    host_bytes: int
    """What an offloading recipe keeps in the memory of each host; 0 for others."""


def fastest_setup(
    model: ModelSpec, training: TrainingSpec, shape: Shape, sequences: int, framework: str,
    sharing: Sharing = ANY_SHARING,
) -> Setup | None:  # fmt: skip
    """The fastest way to train `sequences` an optimizer step on these cards; None where no recipe fits or is timed."""
    if sequences % shape.gpus:
        return None
    found: list[Setup] = []
    for parallelism in _parallelisms(shape, sharing):
        strategy, adapted = parallelism.strategy, training.adapter is not None
        left_out = bool(found) if strategy == LAST else strategy == GATHERED_ONCE and adapted
        if sharing.strategy is None and left_out:
            continue
        for shared in _loaded(replace(training, parallelism=parallelism)):
            if setups := list(_setups(model, shared, shape, sequences, framework)):
                found += setups
                break
        if any(_has_nothing_to_gain(setup) for setup in found):
            break
    return max(found, key=lambda setup: setup.step.tokens_per_s, default=None)


def _loaded(training: TrainingSpec) -> Iterator[TrainingSpec]:
    """As the libraries load it, and in parts where they hold the whole model first."""
    yield training
    if parts := in_parts(training):
        yield parts


def _has_nothing_to_gain(setup: Setup) -> bool:
    """Shards could spare neither passes nor recomputation, nor much of the optimizer's work: that of an adapter."""
    training = setup.training
    at_once = training.gradient_accumulation_steps == 1 and not training.gradient_checkpointing
    return at_once and training.adapter is not None


def _parallelisms(shape: Shape, sharing: Sharing) -> Iterator[ParallelismSpec]:
    if shape.gpus == 1:
        yield ParallelismSpec()
    else:
        for strategy in STRATEGIES if sharing.strategy is None else (sharing.strategy,):
            yield ParallelismSpec(gpus=shape.gpus, nodes=shape.nodes, strategy=strategy)
    if sharing.cpu_offload:
        strategy = sharing.strategy or SHARDED
        yield ParallelismSpec(gpus=shape.gpus, nodes=shape.nodes, strategy=strategy, cpu_offload=True)


def _setups(
    model: ModelSpec, training: TrainingSpec, shape: Shape, sequences: int, framework: str
) -> Iterator[Setup]:
    """The fastest micro-batch of each way, which is only tried where it can win: not with the whole batch at once."""
    each = sequences // shape.gpus
    ways = dict.fromkeys(settle_training(model, way, shape.gpu)[0] for way in _ways(training))
    least = next(iter(ways))
    if not _may_fit(model, replace(least, micro_batch_size=1, gradient_accumulation_steps=each), shape.gpu):
        return
    for way in reversed(ways):
        fitting = _fitting(model, way, shape, each)
        timed = [(step_time(model, tried, shape.gpu, framework), tried) for tried in fitting]
        if fastest := max(timed, key=_speed, default=None):
            step, tried = fastest
            if step:
                yield _setup(model, tried, shape, step)
            if fitting[-1].gradient_accumulation_steps == 1:
                return


def _ways(training: TrainingSpec) -> Iterator[TrainingSpec]:
    """From the least memory to the most. FSDP's whole gradients can be too large; those of an adapter are small."""
    whole = training.adapter is None and is_fsdp(training.parallelism)
    for checkpointing in (True, False):
        for synced in (True, False) if whole else (False,):
            yield replace(training, gradient_checkpointing=checkpointing, sync_each_batch=synced)


def _speed(timed: tuple[StepTime | None, TrainingSpec]) -> float:
    """Tokens a second. A larger micro-batch is not always faster: its tensors may leave the card's cache."""
    return timed[0].tokens_per_s if timed[0] else 0.0


def _setup(model: ModelSpec, training: TrainingSpec, shape: Shape, step: StepTime) -> Setup:
    offloads = training.parallelism.cpu_offload
    kept = training.parallelism.gpus_per_node * host_bytes(model, training) if offloads else 0
    return Setup(shape, training, _judged(model, training, shape.gpu), step, kept)


def _fitting(model: ModelSpec, way: TrainingSpec, shape: Shape, sequences: int) -> list[TrainingSpec]:
    """Micro-batches that fit, the smallest first: powers of two that divide what each card has to do in a step.

    They are looked for by tensors, which is fast; then what the allocator keeps is replayed for the largest.
    """
    powers = (1 << power for power in range(sequences.bit_length()))
    sizes = [
        replace(
            way, micro_batch_size=size, gradient_accumulation_steps=sequences // size,
            sync_each_batch=way.sync_each_batch and size < sequences,
        )
        for size in powers if sequences % size == 0
    ]  # fmt: skip
    fit, most = 0, len(sizes)
    while fit < most:
        middle = (fit + most) // 2 if fit else 0  # most shapes that fail do so at the smallest
        if _may_fit(model, sizes[middle], shape.gpu):
            fit = middle + 1
        else:
            most = middle
    fitting = sizes[:fit]
    while fitting and not _fits(model, fitting[-1], shape.gpu):
        fitting.pop()
    return fitting


# ── what is estimated once for all cards and counts that it does not depend on ──────────────────────────────────────


def _may_fit(model: ModelSpec, training: TrainingSpec, gpu: GpuSpec) -> bool:
    """Whether it may fit as far as is known without a replay; False for a recipe that cannot be on such a card."""
    try:
        least = least_reserved(model, _alike(training), traits_of(gpu))
    except SpecError:
        return False
    return within(least, training.parallelism, gpu)


def _fits(model: ModelSpec, training: TrainingSpec, gpu: GpuSpec) -> bool:
    """As `judge` has it, with what the allocator keeps, and with the band of all."""
    return _judged(model, training, gpu).fit is Fit.FITS


def _judged(model: ModelSpec, training: TrainingSpec, gpu: GpuSpec) -> Verdict:
    components = _reserved(model, _alike(training), as_needed(traits_of(gpu), model, training))
    return judge(MemoryProfile((*components, *beside_allocator(training.parallelism, gpu))), gpu)


_reserved = lru_cache(maxsize=8192)(reserved_components)


@lru_cache(maxsize=8192)
def _alike(training: TrainingSpec) -> TrainingSpec:
    """A recipe that needs the same on each card: copies do not depend on how many they are, nor shards on the nodes."""
    parallelism = training.parallelism
    gpus = min(parallelism.gpus, 2) if parallelism.strategy == COPIED else parallelism.gpus
    return replace(
        training, parallelism=replace(parallelism, gpus=gpus, nodes=1),
        gradient_accumulation_steps=min(training.gradient_accumulation_steps, 2),
    )  # fmt: skip
