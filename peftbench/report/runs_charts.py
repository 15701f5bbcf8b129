"""Charts of measured runs: parts against the card, predicted against measured, memory over time, time of a step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from peftbench.check.comparison import Comparison
from peftbench.memory import Part
from peftbench.record import Outcome
from peftbench.report.page import Figure, plain
from peftbench.report.timeline_chart import COLOURS
from peftbench.units import GIB, MIB

PARTS = {**COLOURS, Part.SLACK: "#8cd17d", Part.CONTEXT: "#d4a6c8"}
METHODS = ("#4e79a7", "#f28e2c", "#e15759", "#76b7b2", "#59a14f", "#edc949", "#af7aa1", "#ff9da7", "#9c755f", "#bab0ab")
DEVICE, PROCESS, MEASURED, LIMIT = "#4e79a7", "#f28e2c", "#111827", "#d64545"
INK = "#7b8794"
"""Of text and axes: legible on white and on black."""
BAR_PX, AROUND_PX = 34, 150


def unit_of(sizes: Iterable[int | None]) -> tuple[str, int]:
    """GiB, or MiB where all is small."""
    return ("GiB", GIB) if max((size or 0 for size in sizes), default=0) >= GIB else ("MiB", MIB)


def layout(height: int, **more: Any) -> Figure:
    """What all charts have in common; the page's own colour shows through."""
    axis = {"gridcolor": "rgba(123,135,148,0.25)", "zerolinecolor": "rgba(123,135,148,0.4)", "automargin": True}
    axes = {name: {**axis, **more.pop(name, {})} for name in ("xaxis", "yaxis")}
    return {
        "height": height, "margin": {"l": 10, "r": 20, "t": 20, "b": 40}, "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)", "font": {"color": INK, "family": "system-ui, sans-serif", "size": 12},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "traceorder": "normal"}, "hovermode": "closest",
        **axes, **more,
    }  # fmt: skip


# ── parts ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def parts_figure(comparisons: Sequence[Comparison]) -> Figure:
    """A bar a case: the parts that are predicted at its peak, what was measured, and the card."""
    names = [plain(c.record.case.id) for c in comparisons]
    capacities = {c.record.environment.memory_bytes for c in comparisons if c.record.environment.device == "cuda"}
    sizes = [size for c in comparisons for size in (*c.predicted, *c.measured)]
    unit, scale = unit_of(sizes)
    present = [part for part in PARTS if any(_part(c, part) for c in comparisons)]
    bars = [
        {
            "type": "bar", "orientation": "h", "name": part.value, "y": names, "marker": {"color": PARTS[part]},
            "x": [_part(c, part) / scale for c in comparisons],
            "hovertemplate": f"%{{y}}<br>{part.value} %{{x:.2f}} {unit}<extra></extra>",
        }
        for part in present
    ]  # fmt: skip
    seen = [c.measured.device_bytes or c.measured.allocated_bytes for c in comparisons]
    marker = {
        "type": "scatter", "mode": "markers", "name": "measured", "y": names,
        "x": [None if size is None else size / scale for size in seen],
        "marker": {"symbol": "diamond", "size": 10, "color": MEASURED, "line": {"width": 1.5, "color": "#fff"}},
        "text": [plain(c.record.measurement.outcome.value) for c in comparisons],
        "hovertemplate": f"%{{y}}<br>measured %{{x:.2f}} {unit}, %{{text}}<extra></extra>",
    }  # fmt: skip
    shapes = [_capacity(size / scale) for size in capacities if size / scale < 3 * max(filter(None, sizes)) / scale]
    height = AROUND_PX + BAR_PX * len(names)
    axis = {"title": {"text": f"{unit} at the peak"}, "rangemode": "tozero"}
    return {
        "data": [*bars, marker],
        "layout": layout(
            height, barmode="stack", xaxis=axis, yaxis={"autorange": "reversed", "type": "category"}, shapes=shapes
        ),
    }  # fmt: skip


def _part(comparison: Comparison, part: Part) -> int:
    return comparison.profile.bytes_of(part) if comparison.profile else 0


def _capacity(x: float) -> Figure:
    """Where the card ends."""
    line = {"color": LIMIT, "width": 2, "dash": "dash"}
    label = {"text": "card", "textposition": "start", "font": {"color": LIMIT, "size": 11}}
    return {"type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "paper", "line": line, "label": label}


# ── predicted against measured ──────────────────────────────────────────────────────────────────────────────────────


def scatter_figure(comparisons: Sequence[Comparison]) -> Figure:
    """Allocated peaks of every run that ended well, on logarithmic axes, with ±5 % around the diagonal."""
    points = [c for c in comparisons if c.errors.allocated is not None]
    sizes = [size for c in points for size in (c.measured.allocated_bytes, c.predicted.allocated_bytes)]
    unit, scale = unit_of(sizes)
    methods = list(dict.fromkeys(c.record.case.recipe.method for c in points))
    ends = [min(filter(None, sizes), default=1) / scale / 1.5, max(filter(None, sizes), default=1) / scale * 1.5]
    traces = [_line(ends, 1.0, "predicted = measured", "solid"), _line(ends, 1.05, "±5 %", "dot"),
              {**_line(ends, 0.95, "±5 %", "dot"), "showlegend": False}]  # fmt: skip
    traces += [_of_method(points, method, scale, unit, n) for n, method in enumerate(methods)]
    axis = {"type": "log", "title": {"text": f"measured, {unit}"}, "dtick": "D2"}
    other = {"type": "log", "title": {"text": f"predicted, {unit}"}, "dtick": "D2"}
    return {"data": traces, "layout": layout(460, xaxis=axis, yaxis=other)}


def _line(ends: list[float], factor: float, name: str, dash: str) -> Figure:
    return {
        "type": "scatter", "mode": "lines", "name": name, "x": ends, "y": [end * factor for end in ends],
        "line": {"color": INK, "width": 1, "dash": dash}, "hoverinfo": "skip",
    }  # fmt: skip


def _of_method(points: Sequence[Comparison], method: str, scale: int, unit: str, number: int) -> Figure:
    chosen = [c for c in points if c.record.case.recipe.method == method]
    return {
        "type": "scatter", "mode": "markers", "name": plain(method),
        "x": [(c.measured.allocated_bytes or 0) / scale for c in chosen],
        "y": [(c.predicted.allocated_bytes or 0) / scale for c in chosen],
        "marker": {"size": 10, "color": METHODS[number % len(METHODS)], "line": {"width": 1, "color": "#fff"}},
        "text": [f"{plain(c.record.suite)}: {plain(c.record.case.id)}<br>{c.errors.allocated:+.2%}" for c in chosen],
        "hovertemplate": f"%{{text}}<br>measured %{{x:.3f}} {unit}, predicted %{{y:.3f}} {unit}<extra></extra>",
    }  # fmt: skip


# ── over time ───────────────────────────────────────────────────────────────────────────────────────────────────────


def time_figures(comparisons: Sequence[Comparison]) -> dict[str, Figure]:
    """A figure a run that has samples, by suite and case: the device, the process, and when phases began."""
    found: dict[str, Figure] = {}
    for comparison in comparisons:
        record = comparison.record
        if record.measurement.samples:
            name = f"{record.suite}: {record.case.id}"
            name = name if name not in found else f"{name} ({record.environment.started_at})"
            found[name] = _over_time(comparison)
    return found


def _over_time(comparison: Comparison) -> Figure:
    found = comparison.record.measurement
    times = [sample.time_s for sample in found.samples]
    device = [sample.used_bytes for sample in found.samples]
    process = [sample.process_bytes for sample in found.samples]
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
    marks = {
        "type": "scatter", "mode": "markers", "name": "a phase begins", "x": [time_s for time_s, _ in found.marks],
        "y": [0] * len(found.marks), "marker": {"symbol": "triangle-up", "size": 9, "color": INK},
        "text": [phase.value for _, phase in found.marks], "hovertemplate": "%{x:.2f} s<br>%{text}<extra></extra>",
    }  # fmt: skip
    axes = {"xaxis": {"title": {"text": "seconds"}}, "yaxis": {"title": {"text": unit}, "rangemode": "tozero"}}
    return {"data": [*traces, marks], "layout": layout(380, **axes)}


# ── step time ───────────────────────────────────────────────────────────────────────────────────────────────────────


def step_figure(comparisons: Sequence[Comparison]) -> Figure:
    """A bar a case that ended well: the median step, from the fastest to the slowest."""
    chosen = [c for c in comparisons if c.record.measurement.outcome is Outcome.OK and c.record.measurement.step_s]
    steps = [c.record.measurement.step_s for c in chosen]
    middles = [median(step) for step in steps]
    bars = {
        "type": "bar", "orientation": "h", "y": [plain(c.record.case.id) for c in chosen], "x": middles,
        "marker": {"color": DEVICE}, "showlegend": False, "hovertemplate": "%{y}<br>%{x:.3f} s<extra></extra>",
        "error_x": {
            "type": "data", "symmetric": False, "color": INK, "thickness": 1,
            "array": [max(step) - middle for step, middle in zip(steps, middles, strict=True)],
            "arrayminus": [middle - min(step) for step, middle in zip(steps, middles, strict=True)],
        },
    }  # fmt: skip
    axis = {"title": {"text": "seconds a step, or a generation: median, fastest and slowest"}, "rangemode": "tozero"}
    height = AROUND_PX - 80 + BAR_PX * len(chosen)
    return {
        "data": [bars],
        "layout": layout(height, xaxis=axis, yaxis={"autorange": "reversed", "type": "category"}),
    }
