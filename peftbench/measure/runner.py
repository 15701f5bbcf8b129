"""Run cases one after another, each in a child of its own, and make a record of each as it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TypeVar

from peftbench.base.errors import SpecError
from peftbench.inputs.case import TIMEOUT_S, Case
from peftbench.inputs.comparison import ComparisonCase
from peftbench.measure.child_process import Child, Course, Stop
from peftbench.measure.device.environment import environment_of, versions
from peftbench.measure.device.open import Device
from peftbench.measure.device.sampler import Sampler
from peftbench.memory import Phase
from peftbench.records.comparison import ComparisonRecord, Result, result_from_json
from peftbench.records.curve import SHOWN, thin
from peftbench.records.environment import Outcome
from peftbench.records.run import Measurement, RunRecord

FINISHED = (Outcome.OK, Outcome.OOM)
"""Outcomes that running a case again would only repeat."""

Progress = Callable[[Course], None]
Record = TypeVar("Record", RunRecord, ComparisonRecord)


def run_case(
    case: Case, device: Device, suite: str, stop: Stop, timeout_s: float = TIMEOUT_S,
    progress: Progress = lambda course: None,
) -> RunRecord:  # fmt: skip
    """One case in a child; whatever becomes of it is in the record. Raises Interrupted on SIGINT and SIGTERM."""
    baseline_bytes, before_j = device.used_bytes(), device.energy_j()
    began_s = time.monotonic()
    with Child(case, device.uuid) as child, Sampler(device.reader(child.group)) as sampler:
        first_s = time.monotonic()
        course = child.watch(timeout_s, stop, progress)
    duration_s, after_j = time.monotonic() - began_s, device.energy_j()
    energy_j = None if before_j is None or after_j is None else max(after_j - before_j, 0.0)
    found = _measurement(course, sampler, baseline_bytes, first_s)
    found = replace(found, duration_s=duration_s, energy_j=energy_j)
    return RunRecord(suite=suite, case=case, environment=environment_of(device, course.device), measurement=found)


def _measurement(course: Course, sampler: Sampler, baseline_bytes: int | None, first_s: float) -> Measurement:
    assert course.outcome is not None
    peak, lost = sampler.peak("used_bytes"), sampler.lost
    ended_well, order = course.outcome is Outcome.OK, list(Phase)
    return Measurement(
        outcome=course.outcome,
        message="; ".join(filter(None, (course.message, f"the device was lost: {lost}" if lost else ""))),
        last_phase=None if ended_well or not course.marks else course.marks[-1][1],
        phases=tuple(sorted(course.phases.values(), key=lambda found: (found.step, order.index(found.phase)))),
        step_s=tuple(course.step_s), prefill_s=tuple(course.prefill_s), losses=tuple(course.losses),
        alloc_retries=course.facts.get("alloc_retries"),
        trainable_parameters=course.facts.get("trainable_parameters"),
        num_parameters=course.facts.get("num_parameters"),
        baseline_bytes=baseline_bytes,
        device_peak_bytes=None if peak is None or baseline_bytes is None else max(peak - baseline_bytes, 0),
        process_peak_bytes=sampler.peak("process_bytes"),
        samples=thin(sampler.samples),
        marks=tuple((began_s - first_s, phase) for began_s, phase in course.marks[:SHOWN]),
    )  # fmt: skip


# ── what is there already ───────────────────────────────────────────────────────────────────────────────────────────


def finished(records: Iterable[Record], device: Device) -> dict[str, Record]:
    """Records whose case would only repeat itself, by the key of the case: same card and same libraries."""
    today = versions()
    return {
        record.case.key: record
        for record in records
        if record.outcome in FINISHED
        and record.environment.product == device.product
        and dict(record.environment.versions) == today
    }


# ── how much fits ───────────────────────────────────────────────────────────────────────────────────────────────────


def growing(run: Callable[[int], Outcome], most: int) -> Iterator[int]:
    """Values from 1 on, doubled until one runs out of memory, then halved in: the largest that runs comes out.

    Yields each value after it was run. `most` is the last that is tried.
    """
    good, bad, value = 0, most + 1, 1
    while good + 1 < bad:
        outcome = run(value)
        yield value
        if outcome is Outcome.OK:
            good = value
        elif outcome is Outcome.OOM:
            bad = value
        else:
            return
        value = min(2 * good, most) if bad > most else (good + bad) // 2


# ── a comparison of variants ──────────────────────────────────────────────────────────────────────────────────────────


def run_comparison(
    case: ComparisonCase, device: Device, suite: str, stop: Stop, timeout_s: float, progress: Callable[[Course], None]
) -> ComparisonRecord:
    """All variants; whatever becomes of the child is in the record. Raises Interrupted on SIGINT and SIGTERM."""
    began_s = time.monotonic()
    with Child(case, device.uuid) as child, Sampler(device.reader(child.group)) as sampler:
        course = child.watch(timeout_s, stop, progress)
    outcome, unread = course.outcome, ""
    assert outcome is not None
    results: tuple[Result, ...] = ()
    try:
        results = tuple(result_from_json(case, value) for value in course.results)
    except SpecError as error:
        outcome, unread = Outcome.ERROR, f"its results cannot be read: {error}"
    return ComparisonRecord(
        suite=suite, case=case, environment=environment_of(device, course.device), outcome=outcome,
        message="; ".join(filter(None, (course.message, unread))), results=results, facts=dict(course.facts),
        duration_s=time.monotonic() - began_s, process_peak_bytes=sampler.peak("process_bytes"),
    )  # fmt: skip
