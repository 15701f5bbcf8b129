"""Run a comparison of variants in one child, and make a record of it as it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from peftbench.base.errors import SpecError
from peftbench.inputs.comparison import ComparisonCase
from peftbench.measure.child_process import Child, Course, Stop
from peftbench.measure.device.environment import environment_of, versions
from peftbench.measure.device.open import Device
from peftbench.measure.device.sampler import Sampler
from peftbench.measure.runner import FINISHED
from peftbench.records.comparison import ComparisonRecord, Result, result_from_json
from peftbench.records.environment import Outcome


def run_comparison(
    case: ComparisonCase, device: Device, suite: str, stop: Stop, timeout_s: float, progress: Callable[[Course], None]
) -> ComparisonRecord:
    """All variants; whatever becomes of the child is in the record. Raises Interrupted on SIGINT and SIGTERM."""
    began_s = time.monotonic()
    with Child(case, device.uuid) as child, Sampler(device.reader(child.group)) as sampler:
        course = child.watch(timeout_s, stop, progress)
    results, unread = _results(case, course)
    outcome = course.outcome if not unread else Outcome.ERROR
    assert outcome is not None
    return ComparisonRecord(
        suite=suite, case=case, environment=environment_of(device, course.device), outcome=outcome,
        message="; ".join(filter(None, (course.message, unread))), results=results, facts=dict(course.facts),
        duration_s=time.monotonic() - began_s, process_peak_bytes=sampler.peak("process_bytes"),
    )  # fmt: skip


def _results(case: ComparisonCase, course: Course) -> tuple[tuple[Result, ...], str]:
    """The results that the child sent, and what cannot be read of them."""
    try:
        return tuple(result_from_json(case, value) for value in course.results), ""
    except SpecError as error:
        return (), f"its results cannot be read: {error}"


def finished(records: Iterable[ComparisonRecord], case: ComparisonCase, device: Device) -> ComparisonRecord | None:
    """The last record of the same case, card and libraries, which running it again would only repeat."""
    today = versions()
    same = [
        record
        for record in records
        if record.case.key == case.key and record.outcome in FINISHED
        and record.environment.product == device.product and dict(record.environment.versions) == today
    ]  # fmt: skip
    return same[-1] if same else None
