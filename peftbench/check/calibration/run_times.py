"""How good expected step times are on our own runs, by what holds for cards in general or by a calibration."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from statistics import median
from typing import NamedTuple

from peftbench.check.calibration.runs import Run
from peftbench.records.calibration import read_calibration
from peftbench.records.environment import Outcome
from peftbench.records.run import RunRecord


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
    factors = sorted(_factor(run, fields) for run in ended if run.timed and (fields or not run.card.is_cpu))
    if not factors:
        return None
    return StepAccuracy(len(factors), median(factors), factors[math.ceil(0.9 * len(factors)) - 1])


def _factor(run: Run, fields: Mapping[str, float]) -> float:
    assert run.timed is not None
    ratio = run.timed.step_s(fields) / run.timed.measured_s
    return max(ratio, 1 / ratio)
