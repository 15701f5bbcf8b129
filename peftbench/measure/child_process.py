"""Start the worker, watch it, end it: one process group a case, whatever becomes of it."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

from peftbench.inputs.case import Case, case_to_json
from peftbench.inputs.comparison import ComparisonCase, comparison_to_json
from peftbench.memory import Phase
from peftbench.records.environment import Outcome
from peftbench.records.run import PhasePeak, keep_highest

COMMAND = (sys.executable, "-m", "peftbench.measure.worker")
EXIT_TIMEOUT_S = 5.0
"""How long a child may take to end after it has closed its output."""
LONGEST_LINE = 1 << 20
"""Bytes; no event is longer, garbage may be."""


class Interrupted(Exception):
    """SIGINT or SIGTERM came while a case was running: it has no result."""


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
    """SIGINT and SIGTERM as a file that becomes readable, so that they are noticed between two events only.

    A record that is being written is written to its end; nothing is raised in the middle of anything.
    """

    def __enter__(self) -> Stop:
        self.reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        noted = (signal.SIGINT, signal.SIGTERM)  # by the wakeup file: the handlers have nothing to do
        self._before = {number: signal.signal(number, lambda *_: None) for number in noted}
        self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self.reader)
        os.close(self._writer)


class Child:
    """A worker that runs one case; a context manager after which nothing of it is left."""

    def __init__(self, case: Case | ComparisonCase, uuid: str | None) -> None:
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the child)
        self._process = subprocess.Popen(
            [*COMMAND, str(os.getpid())], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self._errors, env=_environment(case, uuid), start_new_session=True,
        )  # fmt: skip
        self.group = self._process.pid
        self.course = Course()
        asked = case_to_json(case) if isinstance(case, Case) else comparison_to_json(case)
        self._text = json.dumps(asked).encode()

    def __enter__(self) -> Child:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it is dead already: its exit code tells why
            self._process.stdin.write(self._text)
            self._process.stdin.close()
        return self

    def __exit__(self, *_: object) -> None:
        self._kill()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._errors.close()

    def watch(self, timeout_s: float, stop: Stop, progress: Callable[[Course], None]) -> Course:
        """Follow the child to its end, or to ours. Raises Interrupted when a signal asks this process to stop."""
        deadline_s = time.monotonic() + timeout_s
        try:
            for line in self._lines(deadline_s, stop):
                self._take(line)
                progress(self.course)
                if self.course.outcome is not None:  # its last word; what it started may hold the pipe open
                    break
        except TimeoutError:
            self.course.outcome = Outcome.TIMEOUT
            self.course.message = f"after {timeout_s:g} s"
        else:
            self._wait_for_its_end()
        self._kill()
        if self.course.outcome is None:
            self._outcome_from_exit()
        return self.course

    def _lines(self, deadline_s: float, stop: Stop) -> Iterator[bytes]:
        """Whole lines of its output. Raises TimeoutError and Interrupted."""
        assert self._process.stdout is not None
        output, rest = self._process.stdout.fileno(), b""
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            selector.register(stop.reader, selectors.EVENT_READ)
            while True:
                ready = {key.fd for key, _ in selector.select(max(deadline_s - time.monotonic(), 0.0))}
                if stop.reader in ready:
                    raise Interrupted
                if not ready:
                    raise TimeoutError
                read = os.read(output, LONGEST_LINE)
                *lines, rest = (rest + read).split(b"\n")
                yield from lines
                if len(rest) > LONGEST_LINE:
                    yield rest
                if not read or len(rest) > LONGEST_LINE:
                    return

    def _take(self, line: bytes) -> None:
        try:
            self.course.take(json.loads(line))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            self.course.outcome = Outcome.ERROR
            self.course.message = f"its output cannot be read: {line[:80]!r}"

    def _wait_for_its_end(self) -> None:
        """It has nothing more to say; how it ends is part of the result."""
        try:
            self._process.wait(EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            if self.course.outcome is None:
                self.course.outcome, self.course.message = Outcome.ERROR, "it closed its output and did not end"

    def _kill(self) -> None:
        """The whole group: what the child may have started goes with it."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.group, signal.SIGKILL)
        self._process.wait()

    def _outcome_from_exit(self) -> None:
        """It ended without saying how."""
        code = self._process.returncode
        self.course.outcome = Outcome.KILLED if code < 0 else Outcome.ERROR
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"it stopped with exit code {code}"
        if code == -signal.SIGKILL:
            how += ", as the kernel does where memory runs out"
        self.course.message = f"{how}; its last line: {lines[-1][:200]}" if lines else how


def _environment(case: Case | ComparisonCase, uuid: str | None) -> dict[str, str]:
    """The child finds the package where this process found it, and the one card, or none."""
    home = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    path = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH", ""))))
    threads = os.environ.get("OMP_NUM_THREADS", "1")
    visible = uuid if case.device == "cuda" and uuid else ""
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": threads, "CUDA_VISIBLE_DEVICES": visible}
