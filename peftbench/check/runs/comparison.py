"""Lay a run beside what is predicted for it: the three sizes, their errors, and the verdict on its card."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from peftbench.base.errors import SpecError
from peftbench.decide.suite.predict_case import device_of, predict_case
from peftbench.decide.verdict import Verdict, judge
from peftbench.inputs.card.cuda_context import context_bytes
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.memory import MemoryProfile
from peftbench.records.environment import Outcome
from peftbench.records.run import RunRecord


class Sizes(NamedTuple):
    """The three sizes of one run, never mixed; a CPU has only the first."""

    allocated_bytes: int | None
    reserved_bytes: int | None
    device_bytes: int | None


class Errors(NamedTuple):
    """Predicted / measured - 1 of each size; None where either is unknown, or the run did not end well."""

    allocated: float | None
    reserved: float | None
    device: float | None


@dataclass(frozen=True)
class Comparison:
    """One run, and what is predicted for it."""

    record: RunRecord
    profile: MemoryProfile | None
    """None where no formula covers the run; `note` says why."""
    verdict: Verdict | None
    """None without a card or a profile."""
    note: str = ""

    @property
    def measured(self) -> Sizes:
        """What was seen; of a run that did not end well, lower bounds."""
        seen = self.record.measurement
        return Sizes(seen.allocated_bytes, seen.reserved_bytes, seen.device_peak_bytes)

    @property
    def predicted(self) -> Sizes:
        """What is expected; on a CPU, tensors alone: it has neither CUDA's context nor a caching allocator."""
        if self.profile is None:
            return Sizes(None, None, None)
        if self.record.environment.device != "cuda":
            return Sizes(self.profile.allocated_bytes, None, None)
        return Sizes(self.profile.allocated_bytes, self.profile.reserved_bytes, self.profile.device_bytes)

    @property
    def errors(self) -> Errors:
        """The error of each size, as a fraction; positive when too much is predicted."""
        if self.record.measurement.outcome is not Outcome.OK:
            return Errors(None, None, None)
        return Errors(*map(_error, self.predicted, self.measured))


Predictor = Callable[[RunRecord], MemoryProfile]
"""Raises SpecError where it has no prediction."""


def by_formula(record: RunRecord) -> MemoryProfile:
    """The estimate of the record's run, on its device. Raises SpecError where no formula covers it."""
    return predict_case(record.case, card_of(record))


def card_of(record: RunRecord) -> GpuSpec | None:
    """The card that the run had; None for a CPU."""
    environment = record.environment
    if environment.device != "cuda":
        return None
    return GpuSpec(
        name=environment.product, product=environment.product, memory_bytes=environment.memory_bytes,
        memory_source="the record of a run", compute_capability=environment.compute_capability,
        multiprocessors=environment.multiprocessors,
        context_bytes=context_bytes(environment.multiprocessors, environment.compute_capability),
    )  # fmt: skip


def compare(
    records: Iterable[RunRecord],
    predict: Predictor = by_formula,
    card: Callable[[RunRecord], GpuSpec | None] = card_of,
) -> tuple[Comparison, ...]:
    """Predict every run afresh, in the order of the records, and judge it on its card."""
    return tuple(_compared(record, predict, card(record)) for record in records)


def _compared(record: RunRecord, predict: Predictor, card: GpuSpec | None) -> Comparison:
    try:
        profile = predict(record)
    except SpecError as error:
        return Comparison(record, None, None, error.what)
    given = device_of(record.case, card)  # no more than it was allowed to take
    return Comparison(record, profile, judge(profile, given) if card and given else None)


def _error(predicted_bytes: int | None, measured_bytes: int | None) -> float | None:
    if predicted_bytes is None or not measured_bytes:
        return None
    return predicted_bytes / measured_bytes - 1
