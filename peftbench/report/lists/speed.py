"""The answer of `peftbench validate` on published training speeds: factors by group, and every row with its own."""

from __future__ import annotations

from collections.abc import Iterable

from peftbench.check.speed.throughput import SpeedAccuracy, SpeedRow
from peftbench.report.format.table import Table


def speed_table(accuracies: Iterable[SpeedAccuracy], by: str) -> Table:
    """One row a group; factors are how far off in either direction, the bias is predicted by measured."""
    rows = [
        (a.group.rpartition("/")[2], str(a.rows), f"{a.median:.2f}", f"{a.p90:.2f}", f"{a.worst:.2f}", f"{a.bias:.2f}")
        for a in accuracies
    ]
    return Table("", (by, "rows", "median ×", "p90 ×", "worst ×", "bias ×"), rows, "lrrrrr")


def speed_data(accuracies: Iterable[SpeedAccuracy]) -> list[dict[str, object]]:
    """The same for a program."""
    return [
        {"group": a.group, "rows": a.rows, "median_factor": a.median, "p90_factor": a.p90, "worst_factor": a.worst,
         "bias": a.bias}
        for a in accuracies
    ]  # fmt: skip


def speed_rows_table(rows: Iterable[SpeedRow]) -> Table:
    """One row a published step, in seconds."""
    headings = ("record", "source", "device", "GPUs", "model", "method", "measured", "predicted", "ratio")
    cells = [
        (row.record.id, row.record.source, row.record.gpu.name, str(row.record.training.parallelism.gpus),
         row.record.model.name.rpartition("/")[2], row.record.training.method, f"{row.record.step_s:.3g}",
         f"{row.predicted_s:.3g}", f"{row.ratio:.2f}")
        for row in rows
    ]  # fmt: skip
    return Table("", headings, cells, "lllrllrrr")


def speed_rows_data(rows: Iterable[SpeedRow]) -> list[dict[str, object]]:
    """The same for a program, with where the figure comes from."""
    return [
        {"id": row.record.id, "source": row.record.source, "citation": row.record.citation,
         "gpu": row.record.gpu.name, "gpus": row.record.training.parallelism.gpus, "model": row.record.model.name,
         "method": row.record.training.method, "measured_s": row.record.step_s, "predicted_s": row.predicted_s,
         "ratio": row.ratio}
        for row in rows
    ]  # fmt: skip
