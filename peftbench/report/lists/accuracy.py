"""The answer of `peftbench validate`: accuracy by group, and every row with its error."""

from __future__ import annotations

from collections.abc import Iterable

from peftbench.base.units import gib
from peftbench.check.memory.validation import Accuracy, ValidatedRow
from peftbench.check.runs.parts import PartAccuracy
from peftbench.check.runs.validation import Promises
from peftbench.decide.verdict import Fit
from peftbench.records.environment import Outcome
from peftbench.report.format.table import UNKNOWN, Table

SIZES = {"allocated_max": "allocated", "reserved_max": "reserved", "nvml_used": "device"}


def accuracy_table(accuracies: Iterable[Accuracy], by: str) -> Table:
    """One row a group and size, in percent; errors are absolute but for the bias, which has its sign.

    Models and repositories are named without their owner, so that a line fits the terminal.
    """
    headings = ("size", by, "rows", "median", "p90", "worst", "bias", "band")
    rows = [
        (SIZES[a.metric], a.group.rpartition("/")[2], str(a.rows), _percent(a.median_error),
         _percent(a.p90_error), _percent(a.worst_error), _percent(a.bias, "+"), _share(a.in_band))
        for a in accuracies
    ]  # fmt: skip
    return Table("", headings, rows, "llrrrrrr")


def accuracy_data(accuracies: Iterable[Accuracy]) -> list[dict[str, object]]:
    """The same for a program; errors are fractions."""
    return [
        {"metric": a.metric, "group": a.group, "rows": a.rows, "median_error": a.median_error,
         "p90_error": a.p90_error, "worst_error": a.worst_error, "bias": a.bias, "in_band": a.in_band}
        for a in accuracies
    ]  # fmt: skip


def rows_table(rows: Iterable[ValidatedRow]) -> Table:
    """One row a record, sizes in GiB and errors in percent."""
    headings = ("record", "method", "size", "measured", "predicted", "error", "band", "peak")
    cells = [
        (row.record.id, row.record.method, SIZES[row.record.metric], gib(row.record.measured_bytes),
         gib(row.predicted_bytes), _percent(row.error, "+"), _band(row), row.peak_phase.split()[0])
        for row in rows
    ]  # fmt: skip
    return Table("", headings, cells, "lllrrrll")


def rows_data(rows: Iterable[ValidatedRow]) -> list[dict[str, object]]:
    """The same for a program, in bytes and with where the figure comes from."""
    return [
        {"id": row.record.id, "model": row.record.model, "method": row.record.method,
         "gpu": row.record.gpu, "metric": row.record.metric, "measured_bytes": row.record.measured_bytes,
         "predicted_bytes": row.predicted_bytes, "error": row.error, "low_bytes": row.low_bytes,
         "high_bytes": row.high_bytes, "in_band": row.in_band, "peak_phase": row.peak_phase, **row.record.origin}
        for row in rows
    ]  # fmt: skip


def _band(row: ValidatedRow) -> str:
    """Allocated figures are not compared with a band that includes the allocator's slack."""
    if row.record.metric == "allocated_max":
        return UNKNOWN
    return "yes" if row.in_band else "no"


def _percent(fraction: float, sign: str = "") -> str:
    return f"{100 * fraction:{sign}.2f}"


def _share(fraction: float | None) -> str:
    return UNKNOWN if fraction is None else f"{100 * fraction:.0f}"


# ── our own runs ────────────────────────────────────────────────────────────────────────────────────────────────────


def parts_table(parts: Iterable[PartAccuracy]) -> Table:
    """One row a part, in percent of each run's allocated peak."""
    headings = ("part", "runs", "median", "worst", "bias", "worst in")
    rows = [
        (a.part, str(a.rows), _percent(a.median), _percent(a.worst), _percent(a.bias, "+"), a.worst_id) for a in parts
    ]
    return Table("", headings, rows, "lrrrrl")


def parts_data(parts: Iterable[PartAccuracy]) -> list[dict[str, object]]:
    """The same for a program; errors are fractions."""
    return [
        {"part": a.part, "runs": a.rows, "median_error": a.median, "worst_error": a.worst, "bias": a.bias,
         "worst_in": a.worst_id}
        for a in parts
    ]  # fmt: skip


def promises_table(promises: Promises) -> Table:
    """Verdicts beside outcomes."""
    rows = [
        (fit.text, str(promises.count(fit, Outcome.OK)), str(promises.count(fit, Outcome.OOM)), remark)
        for fit, remark in REMARKS.items()
    ]
    return Table("", ("verdict", "ran", "out of memory", ""), rows, "lrrl")


REMARKS = {Fit.FITS: "out of memory: broken promises", Fit.TIGHT: "", Fit.DOES_NOT_FIT: "ran: false alarms"}


def promise_lines(promises: Promises) -> list[str]:
    """The runs that a verdict was wrong about."""
    found = [f"broken promise: {c.record.suite}: {c.record.case.id}" for c in promises.broken]
    return [*found, *(f"false alarm: {c.record.suite}: {c.record.case.id}" for c in promises.false_alarms)]
