"""The answers of `peftbench validate`: how far off predictions are, by group, by part and run by run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from peftbench.base.units import gib
from peftbench.check.memory.validation import Accuracy, ValidatedRow
from peftbench.check.runs.parts import PartAccuracy
from peftbench.check.runs.validation import Promises
from peftbench.check.speed.throughput import SpeedAccuracy, SpeedRow
from peftbench.decide.verdict import Fit
from peftbench.records.environment import Outcome
from peftbench.report.format.sheet import Column, Note, Sheet, listing, tabled


def _percent(fraction: float, sign: str = "") -> str:
    return f"{100 * fraction:{sign}.2f}"


def _last(name: str) -> str:
    """Models and repositories without their owner, so that a line fits the terminal."""
    return name.rpartition("/")[2]


_signed = partial(_percent, sign="+")
_factor, _seconds = "{:.2f}".format, "{:.3g}".format
SIZES = {"allocated_max": "allocated", "reserved_max": "reserved", "nvml_used": "device"}
_SIZE = Column("size", "metric", lambda metric: SIZES[metric])


def accuracy_sheet(accuracies: Iterable[Accuracy], by: str, note: str) -> Sheet:
    """One row a group and size; errors are fractions, in tables percent, absolute but for the bias."""
    columns = (
        _SIZE, Column(by, "group", _last), Column("rows", "rows", side="r"),
        Column("median", "median_error", _percent, "r"), Column("p90", "p90_error", _percent, "r"),
        Column("worst", "worst_error", _percent, "r"), Column("bias", "bias", _signed, "r"),
        Column("band", "in_band", lambda share: f"{100 * share:.0f}", "r"),
    )  # fmt: skip
    names = ("metric", *(str(column.value) for column in columns[1:]))
    rows = [{name: getattr(each, name) for name in names} for each in accuracies]
    return listing("Predicted against measured", columns, rows, note)


ROWS = (
    Column("record", "id"), Column("method", "method"), _SIZE, Column("measured", "measured_bytes", gib, "r"),
    Column("predicted", "predicted_bytes", gib, "r"), Column("error", "error", _signed, "r"),
    Column("band", lambda row: None if row["metric"] == "allocated_max" else "yes" if row["in_band"] else "no"),
    Column("peak", "peak_phase", lambda phase: phase.split()[0]),
)  # fmt: skip


def rows_sheet(found: Iterable[ValidatedRow], note: str) -> Sheet:
    """One row a figure, with where it comes from."""
    rows = [
        {"id": row.record.id, "model": row.record.model, "method": row.record.method,
         "gpu": row.record.gpu, "metric": row.record.metric, "measured_bytes": row.record.measured_bytes,
         "predicted_bytes": row.predicted_bytes, "error": row.error, "low_bytes": row.low_bytes,
         "high_bytes": row.high_bytes, "in_band": row.in_band, "peak_phase": row.peak_phase, **row.record.origin}
        for row in found
    ]  # fmt: skip
    return listing("Predicted against measured", ROWS, rows, note)


PARTS = (
    Column("part", "part"), Column("runs", "runs", side="r"), Column("median", "median_error", _percent, "r"),
    Column("worst", "worst_error", _percent, "r"), Column("bias", "bias", _signed, "r"), Column("worst in", "worst_in"),
)  # fmt: skip


def parts_sheet(parts: Iterable[PartAccuracy], note: str) -> Sheet:
    """One row a part; errors are shares of each run's allocated peak."""
    rows = [
        {"part": a.part, "runs": a.rows, "median_error": a.median, "worst_error": a.worst, "bias": a.bias,
         "worst_in": a.worst_id}
        for a in parts
    ]  # fmt: skip
    return listing("Predicted parts against measured ones", PARTS, rows, note)


# ── verdicts beside outcomes ────────────────────────────────────────────────────────────────────────────────────────

REMARKS = {
    Fit.FITS: "out of memory: broken promises", Fit.TIGHT: "", Fit.RISKY: "", Fit.DOES_NOT_FIT: "ran: false alarms",
}  # fmt: skip
PROMISES = (
    Column("verdict", "verdict", lambda fit: Fit(fit).text), Column("ran", "ran", side="r"),
    Column("out of memory", "out_of_memory", side="r"), Column("", "verdict", lambda fit: REMARKS[Fit(fit)]),
)  # fmt: skip


def with_promises(sheet: Sheet, promises: Promises) -> Sheet:
    """More rows, one a verdict, and the runs that a verdict was wrong about; no more without a run on a card."""
    if not promises.comparisons:
        return sheet
    names = [f"{c.record.suite}: {c.record.case.id}" for c in promises.broken]
    alarms = [f"{c.record.suite}: {c.record.case.id}" for c in promises.false_alarms]
    wrong = {Fit.FITS: {"broken_promises": names}, Fit.DOES_NOT_FIT: {"false_alarms": alarms}}
    rows = [
        {"verdict": fit.value, "ran": promises.count(fit, Outcome.OK),
         "out_of_memory": promises.count(fit, Outcome.OOM), **wrong.get(fit, {})}
        for fit in REMARKS
    ]  # fmt: skip
    page, (columns, others) = sheet.page(), sheet.rows()
    notes = [*(f"broken promise: {name}" for name in names), *(f"false alarm: {name}" for name in alarms)]
    more = page._replace(tables=[*page.tables, tabled(PROMISES, rows)], notes=[*page.notes, *map(Note, notes)])
    all_rows = [*others, *rows]
    all_columns = tuple(dict.fromkeys((*columns, *(name for row in rows for name in row))))
    return Sheet(lambda: more, lambda: all_rows, lambda: (all_columns, all_rows))


# ── speed ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def speed_sheet(accuracies: Iterable[SpeedAccuracy], by: str, note: str) -> Sheet:
    """One row a group; factors are how far off in either direction, the bias is predicted by measured."""
    columns = (
        Column(by, "group", _last), Column("rows", "rows", side="r"), Column("median ×", "median_factor", _factor, "r"),
        Column("p90 ×", "p90_factor", _factor, "r"), Column("worst ×", "worst_factor", _factor, "r"),
        Column("bias ×", "bias", _factor, "r"),
    )  # fmt: skip
    rows = [
        {"group": a.group, "rows": a.rows, "median_factor": a.median, "p90_factor": a.p90, "worst_factor": a.worst,
         "bias": a.bias}
        for a in accuracies
    ]  # fmt: skip
    return listing("Expected steps against published ones", columns, rows, note)


SPEED_ROWS = (
    Column("record", "id"), Column("source", "source"), Column("device", "gpu"), Column("GPUs", "gpus", side="r"),
    Column("model", "model", _last), Column("method", "method"), Column("measured", "measured_s", _seconds, "r"),
    Column("predicted", "predicted_s", _seconds, "r"), Column("ratio", "ratio", _factor, "r"),
)  # fmt: skip


def speed_rows_sheet(found: Sequence[SpeedRow], note: str) -> Sheet:
    """One row a published step, in seconds, with where the figure comes from."""
    rows = [
        {"id": row.record.id, "source": row.record.source, "citation": row.record.citation,
         "gpu": row.record.gpu.name, "gpus": row.record.training.parallelism.gpus, "model": row.record.model.name,
         "method": row.record.training.method, "measured_s": row.record.step_s, "predicted_s": row.predicted_s,
         "ratio": row.ratio}
        for row in found
    ]  # fmt: skip
    return listing("Expected steps against published ones", SPEED_ROWS, rows, note)
