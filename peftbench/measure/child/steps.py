"""Where a run is: marks phases for the memory meter, times steps, and hands every event to the parent as it happens."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch

from peftbench.base.errors import MeasureError
from peftbench.inputs.case import TRACKED_STEPS, Case
from peftbench.measure.child.meter import Meter, start_meter
from peftbench.memory import Phase
from peftbench.records.run import PhasePeak

Send = Callable[[dict[str, Any]], None]
"""Takes one event, a JSON object."""


def now_s(device: str) -> float:
    """time.perf_counter() when everything that was begun on the device is done."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


class Steps:
    """The course of one case. On a CPU the memory of the first steps is metered, the time of later ones taken."""

    def __init__(self, case: Case, send: Send) -> None:
        self.case, self.send = case, send
        self.number = 0
        self._meter: Meter | None = start_meter(case.device == "cuda", self._peak)
        self.began_s = 0.0

    @property
    def total(self) -> int:
        """How many steps there are, warm-up included."""
        return self.case.warmup_steps + self.case.steps

    def mark(self, phase: Phase) -> None:
        """A phase of this step begins."""
        self.send({"mark": phase.value, "step": self.number})
        if self._meter:
            self._meter.mark(phase, self.number)

    def begin(self) -> None:
        """A step begins."""
        self.began_s = now_s(self.case.device)

    def end(self, loss: float | None = None, **more: float) -> None:
        """A step has ended. Raises MeasureError for a loss that is no number."""
        took_s = now_s(self.case.device) - self.began_s
        if loss is not None and not math.isfinite(loss):
            raise MeasureError(f"the loss of step {self.number + 1} is {loss}.", "Use a smaller learning_rate.")
        event = {"step": self.number, "loss": loss}
        if self.number >= self.case.warmup_steps:
            event |= {"step_s": took_s, **more}
        self.send(event)
        self.number += 1
        if self.case.device == "cpu" and self.number == TRACKED_STEPS:
            self.finish()

    def finish(self) -> None:
        """No more memory is metered."""
        meter, self._meter = self._meter, None
        if meter:
            meter.finish()

    def _peak(self, peak: PhasePeak) -> None:
        self.send({"peak": [peak.step, peak.phase.value, peak.allocated_bytes, peak.reserved_bytes, peak.held_bytes]})
