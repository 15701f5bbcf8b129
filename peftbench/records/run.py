"""What a run of one case left: where it ran, how it ended, what it took. One JSON object a line of a results file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache, partial
from typing import Annotated, Any, get_type_hints

from peftbench.base.codec import Count, Seconds, Share, Within, from_json
from peftbench.base.errors import SpecError
from peftbench.inputs.case import Case, case_from_json, case_to_json, object_with
from peftbench.memory import Phase
from peftbench.records.environment import Environment, Moment, Outcome, Took, read_versioned

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Sample:
    """One reading of a device, taken by the parent while the child runs. None is what the device does not report."""

    time_s: Moment
    """Since the first sample."""
    used_bytes: Count | None = None
    """In use on the whole device, by other processes too. None on a CPU."""
    process_bytes: Count | None = None
    """Held by the child's process group: on a GPU as the driver counts, on a CPU the resident set."""
    power_w: Annotated[float, Within(0, 1e6)] | None = None
    utilization: Share | None = None
    """Share of the last period in which a kernel ran, 0 to 1."""
    temperature_c: Annotated[float, Within(-300, 1e4)] | None = None
    clock_mhz: Count | None = None
    """Clock of the multiprocessors."""


@dataclass(frozen=True)
class PhasePeak:
    """The most that torch's allocator held between two marks of the child."""

    step: Count
    phase: Phase
    allocated_bytes: Count
    """Tensors."""
    reserved_bytes: Count | None = None
    """Segments of the caching allocator; None on a CPU, which has none."""
    held_bytes: Count | None = None
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
    step_s: tuple[Took, ...] = ()
    """Seconds of every timed step, or generation; warm-up is not among them."""
    prefill_s: tuple[Took, ...] = ()
    """The seconds of each to its first token."""
    losses: tuple[Annotated[float, Within(-1e39, 1e39)], ...] = ()
    """The loss of every step, warm-up included."""
    alloc_retries: Count | None = None
    """Times the cache was flushed to make room: above 0 it only just fitted. None on a CPU."""
    trainable_parameters: Count | None = None
    num_parameters: Count | None = None
    baseline_bytes: Count | None = None
    """In use on the device before the child started."""
    device_peak_bytes: Count | None = None
    """The highest sample of the device less the baseline: allocator, context and libraries."""
    process_peak_bytes: Count | None = None
    """The highest sample of the child itself: on a CPU its resident set, with the libraries' code in it."""
    energy_j: Annotated[float, Within(0, 1e15)] | None = None
    """From the card's counter over the timed steps' process, start-up included."""
    duration_s: Seconds = 0.0
    """Wall time of the child, start-up included."""
    samples: tuple[Sample, ...] = ()
    """Thinned to a few hundred; the peaks above are of all of them."""
    marks: tuple[tuple[Moment, Phase], ...] = ()
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


def record_from_json(value: object, curves: bool = True) -> RunRecord:
    """The inverse of record_to_json; without `curves`, samples and marks are looked through and not kept.

    Raises CatalogError that says what is wrong.
    """
    return read_versioned(value, SCHEMA_VERSION, "a record of a run", partial(_record, curves))


def _record(curves: bool, value: Mapping[str, Any]) -> RunRecord:
    """There is only one version yet: a second one brings the lifting of the first."""
    given = object_with(("case", "measurement"), value, "record")
    given["case"] = case_from_json(given["case"])
    given["measurement"] = _with_rows(given["measurement"], curves)
    record: RunRecord = from_json(RunRecord, given, "record")
    return record if curves else replace(record, measurement=replace(record.measurement, marks=()))


def _compact(measurement: Measurement) -> dict[str, Any]:
    """Phases and samples as rows under their field names, without columns that are empty."""
    found = asdict(measurement)
    for name, kind in _ROWS.items():
        filled = [field.name for field in fields(kind) if any(row[field.name] is not None for row in found[name])]
        found[name] = {"columns": filled, "rows": [[row[column] for column in filled] for row in found[name]]}
    return found


_ROWS: dict[str, type[PhasePeak] | type[Sample]] = {"phases": PhasePeak, "samples": Sample}


def _with_rows(measurement: object, curves: bool) -> dict[str, Any]:
    """The inverse of _compact. Raises SpecError."""
    given = object_with(_ROWS, measurement, "measurement")
    for name, kind in _ROWS.items():
        columns = _columns(kind, given[name], f"measurement.{name}")
        rows = zip(*columns.values(), strict=True) if curves or kind is not Sample else ()
        given[name] = tuple(kind(**dict(zip(columns, row, strict=True))) for row in rows)
    return given


def _columns(kind: Any, table: object, where: str) -> dict[str, tuple[Any, ...]]:
    """The columns of a table by their names. There are hundreds of rows, so each column is checked as a whole."""
    given = object_with(("columns", "rows"), table, where)
    names, rows = from_json(tuple[str, ...], given["columns"], f"{where}.columns"), given["rows"]
    even = type(rows) is list and {*map(type, rows)} <= {list} and {*map(len, rows)} <= {len(names)}
    if not even or len(set(names)) < len(names):
        raise SpecError(f"{where} must have rows of {len(names)} values, one for each of its columns.")
    if rows:
        from_json(kind, dict(zip(names, rows[0], strict=True)), where)
    columns = zip(names, zip(*rows, strict=True), strict=True) if rows else ()
    return {name: from_json(_column(kind, name), values, f"{where}.{name}") for name, values in columns}


@lru_cache(maxsize=32)
def _column(kind: Any, name: str) -> Any:
    """What a column may hold."""
    return tuple[get_type_hints(kind, include_extras=True)[name], ...]  # type: ignore[misc]
