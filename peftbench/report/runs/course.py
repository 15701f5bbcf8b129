"""The course of a measured run as a chart: memory of the device and the process over time, and where phases began."""

from __future__ import annotations

import math
from collections.abc import Sequence

from peftbench.check.runs.comparison import Comparison
from peftbench.report.format.figure import INK, layout
from peftbench.report.format.sheet import Figure
from peftbench.report.runs.charts import DEVICE, unit_of

PROCESS = "#f28e2c"


def time_figures(comparisons: Sequence[Comparison]) -> dict[str, Figure]:
    """A figure a run that has samples, by suite and case; two of one name have when they began as well."""
    found: dict[str, Figure] = {}
    for comparison in comparisons:
        record = comparison.record
        if record.measurement.samples:
            plainly = f"{record.suite}: {record.case.id}"
            names = (plainly, f"{plainly} ({record.environment.started_at})")
            name = next((name for name in names if name not in found), f"{names[1]} #{len(found) + 1}")
            found[name] = over_time(comparison)
    return found


def over_time(comparison: Comparison) -> Figure:
    """What was there before the run is in the device's line, and not in its peak elsewhere on the page."""
    found = comparison.record.measurement
    samples = [sample for sample in found.samples if math.isfinite(sample.time_s)]
    times = [sample.time_s for sample in samples]
    device, process = [each.used_bytes for each in samples], [each.process_bytes for each in samples]
    unit, scale = unit_of([*device, *process])
    traces = [
        {
            "type": "scatter", "mode": "lines", "name": name, "x": times, "line": {"color": colour, "shape": "hv"},
            "y": [None if size is None else size / scale for size in sizes],
            "hovertemplate": f"%{{x:.2f}} s<br>%{{y:.2f}} {unit}<extra>{name}</extra>",
        }
        for name, sizes, colour in (("device", device, DEVICE), ("process", process, PROCESS))
        if any(size is not None for size in sizes)
    ]  # fmt: skip
    marks = [(time_s, phase.value) for time_s, phase in found.marks if math.isfinite(time_s)]
    began = {
        "type": "scatter", "mode": "markers", "name": "a phase begins", "x": [time_s for time_s, _ in marks],
        "y": [0] * len(marks), "cliponaxis": False, "marker": {"symbol": "triangle-up", "size": 9, "color": INK},
        "text": [phase for _, phase in marks], "hovertemplate": "%{x:.2f} s<br>%{text}<extra></extra>",
    }  # fmt: skip
    axes = {"xaxis": {"title": {"text": "seconds"}}, "yaxis": {"title": {"text": unit}, "rangemode": "tozero"}}
    return {"data": [*traces, began], "layout": layout(380, **axes)}
