"""What a run of one case left: where it ran, how it ended, what it took. One JSON object a line of a results file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from peftbench.base.codec import from_json
from peftbench.inputs.case import Case, case_from_json, case_to_json
from peftbench.memory import Phase
from peftbench.records.environment import Environment, Outcome, read_versioned

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Sample:
    """One reading of a device, taken by the parent while the child runs. None is what the device does not report."""

    time_s: float
    """Since the first sample."""
    used_bytes: int | None = None
    """In use on the whole device, by other processes too. None on a CPU."""
    process_bytes: int | None = None
    """Held by the child's process group: on a GPU as the driver counts, on a CPU the resident set."""
    power_w: float | None = None
    utilization: float | None = None
    """Share of the last period in which a kernel ran, 0 to 1."""
    temperature_c: float | None = None
    clock_mhz: int | None = None
    """Clock of the multiprocessors."""


@dataclass(frozen=True)
class PhasePeak:
    """The most that torch's allocator held between two marks of the child."""

    step: int
    phase: Phase
    allocated_bytes: int
    """Tensors."""
    reserved_bytes: int | None = None
    """Segments of the caching allocator; None on a CPU, which has none."""
    held_bytes: int | None = None
    """Tensors that were there when the phase began."""


def keep_highest(peaks: dict[tuple[int, Phase], PhasePeak], found: PhasePeak) -> None:
    """Micro-batches of a step repeat its phases: the highest peak counts, and what the first began with."""
    before = peaks.get((found.step, found.phase))
    if before is None or found.allocated_bytes > before.allocated_bytes:
        peaks[found.step, found.phase] = replace(found, held_bytes=before.held_bytes) if before else found


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What was seen. Figures of a run that did not end well are what it had reached: lower bounds."""

    outcome: Outcome
    message: str = ""
    """The error in one line."""
    last_phase: Phase | None = None
    """The phase that was under way when it ended; None after a run that ended well."""
    phases: tuple[PhasePeak, ...] = ()
    step_s: tuple[float, ...] = ()
    """Seconds of every timed step, or generation; warm-up is not among them."""
    prefill_s: tuple[float, ...] = ()
    """The seconds of each to its first token."""
    losses: tuple[float, ...] = ()
    """The loss of every step, warm-up included."""
    alloc_retries: int | None = None
    """Times the cache was flushed to make room: above 0 it only just fitted. None on a CPU."""
    trainable_parameters: int | None = None
    num_parameters: int | None = None
    baseline_bytes: int | None = None
    """In use on the device before the child started."""
    device_peak_bytes: int | None = None
    """The highest sample of the device less the baseline: allocator, context and libraries."""
    process_peak_bytes: int | None = None
    """The highest sample of the child itself: on a CPU its resident set, with the libraries' code in it."""
    energy_j: float | None = None
    """From the card's counter over the timed steps' process, start-up included."""
    duration_s: float = 0.0
    """Wall time of the child, start-up included."""
    samples: tuple[Sample, ...] = ()
    """Thinned to a few hundred; the peaks above are of all of them."""
    marks: tuple[tuple[float, Phase], ...] = ()
    """When phases began, in seconds since the first sample; a few hundred at most."""

    @property
    def allocated_bytes(self) -> int | None:
        """Peak of tensors in steps; loading may be higher and is not counted."""
        return max((p.allocated_bytes for p in self.phases if p.phase is not Phase.LOAD), default=None)

    @property
    def reserved_bytes(self) -> int | None:
        """Peak of the allocator's segments over the run, loading included: they stay reserved."""
        return max((p.reserved_bytes for p in self.phases if p.reserved_bytes is not None), default=None)


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One line of results/<device>/<suite>.jsonl."""

    suite: str
    case: Case
    environment: Environment
    measurement: Measurement

    @property
    def outcome(self) -> Outcome:
        """How the run ended."""
        return self.measurement.outcome


def record_to_json(record: RunRecord) -> dict[str, Any]:
    """The object that a line holds."""
    return {
        "schema_version": SCHEMA_VERSION,
        "suite": record.suite,
        "case": case_to_json(record.case),
        "environment": asdict(record.environment),
        "measurement": _compact(record.measurement),
    }


def record_from_json(value: object) -> RunRecord:
    """The inverse of record_to_json; raises CatalogError that says what is wrong."""
    return read_versioned(value, SCHEMA_VERSION, "a record of a run", _record)


def _record(value: Mapping[str, Any]) -> RunRecord:
    """There is only one version yet: a second one brings the lifting of the first."""
    own = {"case": case_from_json(value["case"]), "measurement": _with_rows(value["measurement"])}
    record: RunRecord = from_json(RunRecord, {**value, **own}, "record")
    return record


def _compact(measurement: Measurement) -> dict[str, Any]:
    """Phases and samples as rows under their field names, without columns that are empty."""
    found = asdict(measurement)
    for name, kind in _ROWS.items():
        filled = [field.name for field in fields(kind) if any(row[field.name] is not None for row in found[name])]
        found[name] = {"columns": filled, "rows": [[row[column] for column in filled] for row in found[name]]}
    return found


_ROWS: dict[str, type[PhasePeak] | type[Sample]] = {"phases": PhasePeak, "samples": Sample}


def _with_rows(measurement: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of _compact."""
    given = dict(measurement)
    for name in _ROWS:
        columns = given[name]["columns"]
        given[name] = [dict(zip(columns, row, strict=True)) for row in given[name]["rows"]]
    return given
