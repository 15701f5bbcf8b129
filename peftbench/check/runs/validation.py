"""How good predictions were for runs of our own: their figures, and verdicts beside outcomes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from peftbench.check.memory.validation import PREDICTED, Figure, ValidatedRow, row_of
from peftbench.check.runs.comparison import Comparison
from peftbench.decide.verdict import Fit
from peftbench.records.environment import Outcome
from peftbench.records.run import RunRecord


def run_rows(comparison: Comparison) -> tuple[ValidatedRow, ...]:
    """A row for each size that is both measured and predicted; none for a run that did not end well."""
    record, profile = comparison.record, comparison.profile
    if record.measurement.outcome is not Outcome.OK or profile is None:
        return ()
    sizes = zip(PREDICTED, comparison.measured, comparison.predicted, strict=True)
    return tuple(
        row_of(_figure(record, metric, measured), profile)
        for metric, measured, predicted in sizes
        if measured and predicted is not None
    )


def _figure(record: RunRecord, metric: str, measured_bytes: int) -> Figure:
    """One of the sizes that a run showed."""
    place = record.environment
    return Figure(
        id=f"{record.suite}: {record.case.id}", method=record.case.recipe.method, model=record.case.model,
        gpu=place.product, source=record.suite, metric=metric, measured_bytes=measured_bytes,
        origin={"started_at": place.started_at, "torch": place.versions.get("torch", "")},
    )  # fmt: skip


# ── verdicts ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Promises:
    """Verdicts beside outcomes, of every run on a card that either ran or went out of memory."""

    comparisons: tuple[Comparison, ...]

    def count(self, fit: Fit, outcome: Outcome) -> int:
        """How many runs were judged so and ended so."""
        return len(self._such(fit, outcome))

    @property
    def broken(self) -> tuple[Comparison, ...]:
        """Predicted to fit, ran out of memory: the mistake that costs a night."""
        return self._such(Fit.FITS, Outcome.OOM)

    @property
    def false_alarms(self) -> tuple[Comparison, ...]:
        """Predicted not to fit, and ran."""
        return self._such(Fit.DOES_NOT_FIT, Outcome.OK)

    def _such(self, fit: Fit, outcome: Outcome) -> tuple[Comparison, ...]:
        judged = [each for each in self.comparisons if each.verdict and each.verdict.fit is fit]
        return tuple(each for each in judged if each.record.measurement.outcome is outcome)


def promises_of(comparisons: Iterable[Comparison]) -> Promises:
    """Those that can be judged."""
    ended = (Outcome.OK, Outcome.OOM)
    return Promises(tuple(c for c in comparisons if c.verdict and c.record.measurement.outcome in ended))
