"""How good predictions were for runs of our own: their figures, and verdicts beside outcomes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftbench.base.errors import PeftbenchError, SpecError
from peftbench.check.memory.validation import ValidatedRow, row_of
from peftbench.check.runs.comparison import Comparison, Predictor, card_of
from peftbench.decide.suite.predict_case import device_of
from peftbench.decide.verdict import Fit
from peftbench.records.environment import Outcome
from peftbench.records.run import RunRecord

if TYPE_CHECKING:
    from peftbench.dryrun.session import DryRunSession
    from peftbench.memory import MemoryProfile


@dataclass(frozen=True)
class RunFigure:
    """One of the sizes that a run showed: what check.validation calls a Figure."""

    record: RunRecord
    metric: str
    measured_bytes: int

    @property
    def id(self) -> str:
        """Suite and case."""
        return f"{self.record.suite}: {self.record.case.id}"

    @property
    def method(self) -> str:
        """As people call it."""
        return self.record.case.recipe.method

    @property
    def model(self) -> str:
        """As the suite calls it."""
        return self.record.case.model

    @property
    def gpu(self) -> str:
        """The device's product."""
        return self.record.environment.product

    @property
    def source(self) -> str:
        """The suite."""
        return self.record.suite

    @property
    def origin(self) -> Mapping[str, str]:
        """When it ran, and with which torch."""
        environment = self.record.environment
        return {"started_at": environment.started_at, "torch": environment.versions.get("torch", "")}


def run_rows(comparison: Comparison) -> tuple[ValidatedRow, ...]:
    """A row for each size that is both measured and predicted; none for a run that did not end well."""
    if comparison.record.measurement.outcome is not Outcome.OK or comparison.profile is None:
        return ()
    seen, said = comparison.measured, comparison.predicted
    figures = {
        "allocated_max": (seen.allocated_bytes, said.allocated_bytes),
        "reserved_max": (seen.reserved_bytes, said.reserved_bytes),
        "nvml_used": (seen.device_bytes, said.device_bytes),
    }
    return tuple(
        row_of(RunFigure(comparison.record, metric, measured), comparison.profile)
        for metric, (measured, predicted) in figures.items()
        if measured and predicted is not None
    )


def by_dry_run_of_case(session: DryRunSession, report: Callable[[RunRecord, float], None]) -> Predictor:
    """Predict a run by dry run, on fake tensors of the kind of device that it had."""
    from peftbench.dryrun.workload import workload_of

    def predict(record: RunRecord) -> MemoryProfile:
        case, gpu = record.case, device_of(record.case, card_of(record))
        device = "host" if case.device == "cpu" else case.device
        workload = workload_of(json.loads(case.config), case.recipe, gpu, device=device)
        try:
            return session.run(workload, gpu, progress=lambda share: report(record, share)).observed
        except PeftbenchError as error:
            raise SpecError(error.what, error.hint) from None

    return predict


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
        """Said it fits, went out of memory: the mistake that costs a night."""
        return self._such(Fit.FITS, Outcome.OOM)

    @property
    def false_alarms(self) -> tuple[Comparison, ...]:
        """Said it does not fit, and it ran."""
        return self._such(Fit.DOES_NOT_FIT, Outcome.OK)

    def _such(self, fit: Fit, outcome: Outcome) -> tuple[Comparison, ...]:
        return tuple(
            comparison
            for comparison in self.comparisons
            if comparison.verdict is not None
            and comparison.verdict.fit is fit
            and comparison.record.measurement.outcome is outcome
        )


def promises_of(comparisons: Iterable[Comparison]) -> Promises:
    """Those that can be judged."""
    ended = (Outcome.OK, Outcome.OOM)
    return Promises(tuple(c for c in comparisons if c.verdict and c.record.measurement.outcome in ended))
