"""Judge a calibration by runs that it was not fitted on, and expected step times with one or without."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import NamedTuple

from peftbench.base.errors import CatalogError
from peftbench.check.calibration.runs import Run
from peftbench.check.groups import factor_of, nine_of_ten
from peftbench.check.runs.comparison import Comparison, card_of, compare
from peftbench.decide.calibrated import card_name, other_stack, refuse_own_rows
from peftbench.decide.suite.predict_case import predict_case
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.memory import MemoryProfile
from peftbench.records.calibration import fingerprint, read_calibration, stack_of
from peftbench.records.environment import Outcome
from peftbench.records.run import RunRecord


def compare_calibrated(records: Sequence[RunRecord], file: str) -> tuple[Comparison, ...]:
    """Predict every run afresh, with the constants of a calibration.

    Raises PeftbenchError where one of the runs is of another card or stack, or was used to fit it.
    """
    found = read_calibration(file)
    if not records:
        raise CatalogError("no run of `peftbench run` is there to judge a calibration by.", _OTHERS)
    refuse_own_rows(found, file, map(fingerprint, records))
    for record in records:
        place = record.environment
        if card_name(place.product) != card_name(found.product):
            raise CatalogError(f"{file} is a calibration of {found.product}, and a run is of {place.product}.", _OTHERS)
        if why := other_stack(found, stack_of(place.versions)):
            raise CatalogError(f"{file} {why} in {record.case.id}.", _OTHERS)

    def card(record: RunRecord) -> GpuSpec | None:
        bare = card_of(record)
        return bare.calibrated(found.card_constants) if bare else None

    def predict(record: RunRecord) -> MemoryProfile:
        return predict_case(record.case, card(record))

    return compare(records, predict, card)


_OTHERS = "Validate runs of its own card and stack."


class StepAccuracy(NamedTuple):
    """Expected by measured or its inverse, whichever is above 1."""

    runs: int
    median: float
    p90: float

    @property
    def text(self) -> str:
        """In one sentence."""
        steps = f"The steps of {self.runs} runs" if self.runs > 1 else "The steps of one run"
        far = f"×{self.median:.2f} at the median, ×{self.p90:.2f} for nine of ten"
        return f"{steps} are expected within a factor of {far}."


def step_accuracy(records: Iterable[RunRecord], calibration: str | None = None) -> StepAccuracy | None:
    """None where no run was timed and can be expected: of a CPU nothing is known but what a calibration says."""
    fields = read_calibration(calibration).time_constants if calibration else {}
    ended = (Run(record) for record in records if record.measurement.outcome is Outcome.OK)
    timed = (run.timed for run in ended if (fields or not run.card.is_cpu) and run.timed)
    factors = [factor_of(run.step_s(fields) / run.measured_s) for run in timed]
    return StepAccuracy(len(factors), median(factors), nine_of_ten(factors)) if factors else None
