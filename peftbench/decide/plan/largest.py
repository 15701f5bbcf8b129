"""The largest value of an option with which a recipe still fits, by bisection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

from peftbench.base.errors import SpecError
from peftbench.decide.plan.savings import SEQUENCE_STEP
from peftbench.decide.verdict import Fit, Verdict, judge
from peftbench.estimate.parts.card import traits_of
from peftbench.estimate.parts.slack import context
from peftbench.estimate.peft_forward.virtual_tokens import virtual_tokens
from peftbench.estimate.training import Least, estimate_training, least_reserved
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.recipe import ParallelismSpec, TrainingSpec
from peftbench.memory import ALWAYS, Component

FIELDS = ("sequence_length", "micro_batch_size")
MOST_SEQUENCES = 1 << 16
MOST_TOKENS = 1 << 22
"""Where a search stops: for a micro-batch, and for a sequence that is longer than the model's positions."""


class Largest(NamedTuple):
    """How far an option can be raised on a card, as predicted; 0 where not even 1 would do."""

    option: str
    """As typed: "--sequence-length"."""
    fits: int
    """With the whole band of the prediction."""
    expected: int
    """With the prediction itself."""
    positions: int | None
    """The tokens that the model has positions for, which end the search; None for a micro-batch."""
    beyond: int | None
    """What would fit if the model had more positions, where those alone end the search and it can be run on more."""
    verdict: Verdict
    """On `fits`, or else on `expected`, or on 1."""

    @property
    def value(self) -> int:
        """What the verdict is on."""
        return self.fits or self.expected or 1


def largest_of(model: ModelSpec, training: TrainingSpec, gpu: GpuSpec, field: str) -> Largest:
    """Both largest values of one of FIELDS, and the verdict there."""
    fits, expected = (largest(model, training, gpu, field, fit) for fit in (Fit.FITS, Fit.TIGHT))
    positions = _positions(model, training) if field == "sequence_length" else None
    beyond = None
    if fits == positions and not model.learned_positions:
        beyond = _longest(model, training, gpu, Fit.FITS, MOST_TOKENS)
    setting: dict[str, Any] = {field: fits or expected or 1}
    verdict = judge(estimate_training(model, replace(training, **setting), gpu), gpu)
    return Largest(f"--{field.replace('_', '-')}", fits, expected, positions, beyond, verdict)


def largest(
    model: ModelSpec, training: TrainingSpec, gpu: GpuSpec, field: str, at_worst: Fit = Fit.FITS
) -> int:
    """The largest sequence_length or micro_batch_size with which the recipe fits; 0 when not even 1 does.

    `at_worst` is the verdict that still counts. Sequence lengths from 128 on are rounded down to a multiple of 128,
    unless all positions of the model fit, beyond which none is tried.
    """
    if field not in FIELDS:
        raise SpecError(f"no largest {field} can be found.", f"Choose {' or '.join(FIELDS)}.")
    if field == "sequence_length":
        return _longest(model, training, gpu, at_worst, _positions(model, training))
    return last(lambda size: _fits(model, replace(training, micro_batch_size=size), gpu, at_worst), 1, MOST_SEQUENCES)


def _positions(model: ModelSpec, training: TrainingSpec) -> int:
    """Those that are left to text beside virtual tokens."""
    return model.max_position_embeddings - virtual_tokens(training.adapter)


def _longest(model: ModelSpec, training: TrainingSpec, gpu: GpuSpec, at_worst: Fit, most: int) -> int:
    def fits(length: int) -> bool:
        return _fits(model, replace(training, sequence_length=length), gpu, at_worst)

    if fits(most):
        return most
    steps = last(lambda n: fits(n * SEQUENCE_STEP), 1, (most - 1) // SEQUENCE_STEP)
    return steps * SEQUENCE_STEP or last(fits, 1, min(most, SEQUENCE_STEP) - 1)


def _fits(model: ModelSpec, training: TrainingSpec, gpu: GpuSpec, at_worst: Fit) -> bool:
    verdict = judged(model, training, gpu) if may_fit(model, training, gpu, at_worst) else None
    return verdict is not None and verdict.fit.rank <= at_worst.rank


def may_fit(model: ModelSpec, training: TrainingSpec, gpu: GpuSpec, at_worst: Fit = Fit.FITS) -> bool:
    """As least_fits; False for a recipe that cannot be."""
    try:
        return least_fits(model, training, gpu, at_worst)
    except SpecError:
        return False


def least_fits(model: ModelSpec, training: TrainingSpec, gpu: GpuSpec, at_worst: Fit = Fit.FITS) -> bool:
    """Whether the verdict may be this, or better, as far as is known without a replay: else none is made."""
    return within(least_reserved(model, training, traits_of(gpu)), training.parallelism, gpu, at_worst)


def within(least: Least, parallelism: ParallelismSpec, gpu: GpuSpec, at_worst: Fit = Fit.FITS) -> bool:
    """The same of what is reserved at least, beside NCCL's connections; for Fit.FITS with the whole band."""
    beside = beside_allocator(parallelism, gpu)
    if at_worst is Fit.FITS:
        return least.high_bytes + sum(c.high_bytes for c in beside) - gpu_context(gpu).bytes <= gpu.usable_bytes
    return least.bytes + sum(c.bytes for c in beside) - gpu_context(gpu).bytes <= gpu.usable_bytes


@lru_cache(maxsize=1024)
def beside_allocator(parallelism: ParallelismSpec, gpu: GpuSpec) -> tuple[Component, ...]:
    """What depends on the very card, and is no tensor: NCCL's connections and the context, which comes last."""
    if parallelism.gpus == 1:
        return (gpu_context(gpu),)
    from peftbench.estimate.sharding.reserved import nccl  # a plan for one GPU does not pay for it

    return (*nccl(parallelism, gpu, ALWAYS), gpu_context(gpu))


@lru_cache(maxsize=256)
def gpu_context(gpu: GpuSpec) -> Component:
    """The CUDA context, of which what is expected is off `usable_bytes` already."""
    return context(gpu, ALWAYS)


def last(fits: Callable[[int], bool], least: int, most: int) -> int:
    """The largest value from `least` to `most` that fits, by bisection; `least - 1` when none does."""
    while least <= most:
        middle = (least + most) // 2
        if fits(middle):
            least = middle + 1
        else:
            most = middle - 1
    return most


def judged(model: ModelSpec, training: TrainingSpec, gpu: GpuSpec) -> Verdict | None:
    """The verdict on a recipe that is only tried; None for one that cannot be, as a rank above the matrix is."""
    try:
        return judge(estimate_training(model, training, gpu), gpu)
    except SpecError:
        return None
