"""How `run` goes through its cases: what is skipped, what is shown as it goes, and where records end up."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from peftbench.base.errors import Interrupted
from peftbench.base.screen import fail, say, tell
from peftbench.base.units import gib, human_bytes
from peftbench.base.visible import one_line, shown, shown_lines
from peftbench.cli.progress import Progress
from peftbench.decide.suite.cases import SuiteCase, grown
from peftbench.decide.suite.predict_case import predict_largest
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.inputs.case import Case
from peftbench.inputs.suite import Suite
from peftbench.measure.child_process import Course, Stop
from peftbench.measure.device.open import Device
from peftbench.measure.runner import finished, growing, run_case
from peftbench.records.environment import Outcome
from peftbench.records.file import RecordFile, read_results
from peftbench.records.run import RunRecord, record_to_json
from peftbench.report.format.sheet import UNKNOWN
from peftbench.report.format.terminal import Style, render, terminal_width, wants_colour
from peftbench.report.plan.screens import headline
from peftbench.report.runs.rows import step_median_s
from peftbench.report.runs.table import largest_text, predictions_line, predictions_table

LARGEST_TRIED = 4096
WIDEST = 34


def predict_suite(suite: Suite, cases: tuple[SuiteCase, ...], gpu: GpuSpec | None) -> None:
    """Print what the formulas say of every case, and which will not fit."""
    where = f" on {gpu.name}, {gib(gpu.memory_bytes)} GiB visible" if gpu else ""
    style = Style(terminal_width(), wants_colour(sys.stdout))
    if line := predictions_line(cases, gpu):
        say(headline(line, style) + "\n")
    say(f"{shown(suite.name)}: {len(cases)} cases{where}\n{shown_lines(suite.about)}\n")
    say(render(predictions_table(cases, gpu), style.width, indent=""))
    for note in dict.fromkeys(note for each in cases for note in each.notes):
        tell(note)


def run_suite(
    suite: Suite, cases: tuple[SuiteCase, ...], device: Device, gpu: GpuSpec | None, path: Path, timeout_s: float,
    fresh: bool,
) -> bool:  # fmt: skip
    """Run every case that is not in the file yet; returns whether every record was written."""
    with RecordFile(path, tell) as file, Stop() as stop:
        known = {} if fresh else finished(read_results(path, tell, curves=0).runs, device)
        say(one_line(f"{device.product} → {path}"))
        going = _Going(suite.name, device, gpu, file, timeout_s, stop, known, len(cases))
        try:
            for each in cases:
                going.case(each)
        except Interrupted:
            tell("interrupted: what was measured until now is in the file.", label="")
            raise
        finally:
            written = going.finish()
    say(going.summary(path))
    return written


@dataclass
class _Going:
    """A suite under way."""

    suite: str
    device: Device
    gpu: GpuSpec | None
    file: RecordFile
    timeout_s: float
    stop: Stop
    known: dict[str, RunRecord]
    total: int
    place: int = 0
    measured: int = 0
    skipped: int = 0
    began_s: float = field(default_factory=time.monotonic)
    unwritten: list[RunRecord] = field(default_factory=list)

    def case(self, each: SuiteCase) -> None:
        """One case, or all values of one that is to grow until it runs out of memory."""
        self.place += 1
        if each.grows is None:
            self._run(each.case)
            return

        option, best = each.grows, 0

        def run(value: int) -> Outcome:
            nonlocal best
            outcome = self._run(grown(each.case, option, value))
            best = max(best, value) if outcome is Outcome.OK else best
            return outcome

        for _ in growing(run, LARGEST_TRIED):
            pass
        largest = predict_largest(each.case, option, self.gpu)
        predicted = f" (predicted: {largest_text(largest)})" if largest else ""
        say(f"       {shown(each.case.id)}: the largest {option} that runs is {best or 'none'}{predicted}")

    def _run(self, case: Case) -> Outcome:
        before = self.known.get(case.key)
        label = f"{self.place:3}/{self.total}  {shown(case.id)}"
        if before:
            self.skipped += 1
            say(f"{label:{WIDEST}}  {described(before)}  (done before)")
            return before.measurement.outcome
        with Progress(label, self._remaining(), patience_s=0.0) as progress:
            record = run_case(case, self.device, self.suite, self.stop, self.timeout_s, _shares(case, progress))
        self.measured += 1
        self.known[case.key] = record
        self.unwritten.append(record)
        self._write_kept()
        if self.unwritten:
            tell(f"{self.file.path} cannot be written; {len(self.unwritten)} records are kept until it can.")
        say(f"{label:{WIDEST}}  {described(record)}")
        return record.measurement.outcome

    def _remaining(self) -> str:
        """Judged by the cases so far."""
        if not self.measured:
            return ""
        each_s = (time.monotonic() - self.began_s) / self.measured
        return f"about {_clock(each_s * (self.total - self.place + 1))} to go"

    def _write_kept(self) -> None:
        """A disk that is full now may not be later: nothing is dropped."""
        with suppress(OSError):
            while self.unwritten:
                self.file.append(self.unwritten[0])
                self.unwritten.pop(0)

    def finish(self) -> bool:
        """Try once more; what still cannot be written goes to stdout, where it is not lost."""
        self._write_kept()
        for record in self.unwritten:
            say(json.dumps(record_to_json(record), sort_keys=True))
        if self.unwritten:
            fail(f"Error: {self.file.path} could not be written: its records are above, one a line.")
        return not self.unwritten

    def summary(self, path: Path) -> str:
        """What was done, and what to type next."""
        before = f", {self.skipped} done before" if self.skipped else ""
        took = _clock(time.monotonic() - self.began_s)
        return f"{self.measured} measured{before} in {took}.   next: peftbench validate {path.parent}"


def _shares(case: Case, progress: Progress) -> Callable[[Course], None]:
    """The share of a case that is done: loading counts as one step."""
    steps = case.warmup_steps + case.steps + 1

    def report(course: Course) -> None:
        done = len(course.losses) if case.task == "training" else len(course.step_s)
        progress(min((done + bool(course.marks)) / steps, 1.0))

    return report


def described(record: RunRecord) -> str:
    """A record in half a line: what it took, or how it ended."""
    found = record.measurement
    if found.outcome is not Outcome.OK:
        message = "" if found.outcome is Outcome.OOM else shown(one_line(found.message))
        return f"{found.outcome}: {message}" if message else str(found.outcome)
    size = human_bytes(found.allocated_bytes or 0)
    unit = "s/step" if record.case.task == "training" else "s"
    retries = f", {found.alloc_retries} retries" if found.alloc_retries else ""
    took = f"{step_median_s(found):7.3f} {unit}" if found.step_s else UNKNOWN
    return f"{size:>11}  {took}  ok{retries}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
