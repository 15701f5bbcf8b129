"""Start the worker, watch it, end it: one process group a case, whatever becomes of it."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from peftbench.base.errors import Interrupted
from peftbench.inputs.case import Case, case_to_json
from peftbench.inputs.comparison import ComparisonCase, comparison_to_json
from peftbench.libraries.worker import Worker, end_by_signal
from peftbench.memory import Phase
from peftbench.records.environment import Outcome
from peftbench.records.run import PhasePeak, keep_highest

COMMAND = (sys.executable, "-m", "peftbench.measure.worker")
LONGEST_LINE = 1 << 20
"""Bytes; no event is longer, garbage may be."""


@dataclass
class Course:
    """What the child has reported so far."""

    phases: dict[tuple[int, Phase], PhasePeak] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)
    step_s: list[float] = field(default_factory=list)
    prefill_s: list[float] = field(default_factory=list)
    device: Mapping[str, Any] = field(default_factory=dict)
    """The device as torch describes it."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What the child reports at the end of a run that ended well."""
    marks: list[tuple[float, Phase]] = field(default_factory=list)
    """When each phase began, in seconds of time.monotonic()."""
    results: list[Mapping[str, Any]] = field(default_factory=list)
    """One for each variant of a comparison that is done."""
    progress: float = 0.0
    """The share of a comparison that is done."""
    outcome: Outcome | None = None
    message: str = ""

    def take(self, event: Mapping[str, Any]) -> None:
        """One event. Raises KeyError, TypeError or ValueError for what no worker writes."""
        if "mark" in event:
            self.marks.append((time.monotonic(), Phase(event["mark"])))
        elif "peak" in event:
            step, phase, allocated_bytes, *more = event["peak"]
            keep_highest(self.phases, PhasePeak(int(step), Phase(phase), int(allocated_bytes), *more))
        elif "step" in event:
            for values, name in ((self.losses, "loss"), (self.step_s, "step_s"), (self.prefill_s, "prefill_s")):
                if event.get(name) is not None:
                    values.append(float(event[name]))
        elif "progress" in event:
            self.progress = float(event["progress"])
        elif "result" in event:
            self.results.append(dict(event["result"]))
        elif "device" in event:
            self.device = dict(event["device"])
        elif "done" in event:
            self.facts, self.outcome = dict(event["done"]), Outcome.OK
        else:
            self.outcome = Outcome(event["failed"]["outcome"])
            self.message = str(event["failed"]["message"])


class Stop:
    """SIGINT, SIGTERM and SIGHUP as a file that becomes readable, so that they are noticed between two events only.

    A record that is being written is written to its end; nothing is raised in the middle of anything. A signal that
    was ignored before, as nohup does, stays ignored; in a thread, which gets none, this does nothing.
    """

    def __enter__(self) -> Stop:
        self.reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._before, self._wakeup = {}, -1
        if threading.current_thread() is threading.main_thread():
            noted = (number for number in _NOTED if signal.getsignal(number) is not signal.SIG_IGN)
            # by the wakeup file: the handlers have nothing to do
            self._before = {number: signal.signal(number, lambda *_: None) for number in noted}
            self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before:
            signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self.reader)
        os.close(self._writer)

    def interrupt(self, file: int) -> None:
        """Raise Interrupted for the signal that has come."""
        raise Interrupted(os.read(file, 1)[0])


_NOTED = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Child:
    """A worker that runs one case; a context manager after which nothing of it is left."""

    def __init__(self, case: Case | ComparisonCase, uuid: str | None) -> None:
        self._worker = Worker(COMMAND, LONGEST_LINE, _environment(case, uuid))
        self.group = self._worker.group
        self.course = Course()
        asked = case_to_json(case) if isinstance(case, Case) else comparison_to_json(case)
        self._worker.send(json.dumps(asked))

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self._worker.close()

    def watch(self, timeout_s: float, stop: Stop, progress: Callable[[Course], None]) -> Course:
        """Follow the child to its end, or to ours. Raises Interrupted when a signal asks this process to stop."""
        self._worker.also(stop.reader, stop.interrupt)
        try:
            self._follow(time.monotonic() + timeout_s, progress)
        except TimeoutError:
            self.course.outcome = Outcome.TIMEOUT
            self.course.message = f"after {timeout_s:g} s"
        else:
            ended = self._worker.ends()  # how it ends is part of the result
            if not ended and self.course.outcome is None:
                self.course.outcome, self.course.message = Outcome.ERROR, "it closed its output and did not end"
        self._worker.kill()
        if self.course.outcome is None:
            self._outcome_from_exit()
        return self.course

    def _follow(self, until_s: float, progress: Callable[[Course], None]) -> None:
        """To its last word; what it started may hold the pipe open."""
        while self.course.outcome is None and (line := self._worker.line(until_s)) is not None:
            self._take(line)
            progress(self.course)
            if self.course.outcome is None and time.monotonic() > until_s:
                raise TimeoutError

    def _take(self, line: bytes) -> None:
        try:
            self.course.take(json.loads(line))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
            self.course.outcome = Outcome.ERROR
            self.course.message = f"its output cannot be read: {line[:80]!r}"
            self._worker.kill()  # how it would go on is of no interest

    def _outcome_from_exit(self) -> None:
        """It ended without saying how."""
        code, last = self._worker.code, self._worker.last_words
        self.course.outcome = Outcome.KILLED if code < 0 else Outcome.ERROR
        how = f"by {end_by_signal(-code)}" if code < 0 else f"it stopped with exit code {code}"
        self.course.message = f"{how}; its last line: {last}" if last else how


def _environment(case: Case | ComparisonCase, uuid: str | None) -> dict[str, str]:
    """The child finds the one card, or none."""
    visible = uuid if case.device == "cuda" and uuid else ""
    return {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"), "CUDA_VISIBLE_DEVICES": visible}
