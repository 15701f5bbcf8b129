"""Charts of measured runs: parts against the card, predicted against measured, times of steps, memory over time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import groupby
from statistics import median
from typing import Any

from peftbench.base.units import GIB, MIB, human_bytes
from peftbench.check.runs.comparison import Comparison, card_of
from peftbench.decide.suite.predict_case import device_of
from peftbench.memory import Part
from peftbench.records.environment import Outcome
from peftbench.report.format.figure import COLOURS, INK, SERIES, bars, figure, line, plain, points, upright, words
from peftbench.report.format.sheet import Figure

PARTS = {**COLOURS, Part.SLACK: "#8cd17d", Part.NCCL: "#fabfd2", Part.CONTEXT: "#d4a6c8"}
SYMBOLS = ("circle", "square", "triangle-up")
"""Where there are more methods than colours."""
DEVICE, PROCESS, MEASURED, LIMIT = "#4e79a7", "#f28e2c", "#111827", "#d64545"
ROW_PX, AROUND_PX = 46, 90
BAR = 0.42
"""Share of a row; the name takes the rest."""
FAR = 3
"""A card so many times as large as everything on it is named and not drawn."""
MOST_TICKS, LONGEST_NAME = 7, 56


def unit_of(sizes: Iterable[int | None]) -> tuple[str, int]:
    """GiB, or MiB where all is small."""
    return ("GiB", GIB) if max((size or 0 for size in sizes), default=0) >= GIB else ("MiB", MIB)


# ── parts ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def parts_figure(comparisons: Sequence[Comparison]) -> Figure:
    """A bar a run: the parts that are predicted at its peak, what was measured, and the card."""
    sizes = [size for c in comparisons for size in (*c.predicted, *c.measured)]
    unit, scale = unit_of(sizes)
    top = max((size or 0 for size in sizes), default=0)
    stack = [_part(comparisons, part, unit, scale) for part in parts_of(comparisons)]
    shapes, product = _capacities(comparisons, top, scale)
    furthest = max(top / scale, *(shape["x1"] for shape in shapes), 1e-9)
    axis = {"title": {"text": f"{unit} at the peak"}, "range": [0, 1.04 * furthest]}
    rows = _rows(comparisons)
    rows["annotations"] += product
    rows["height"] += 24 * len(product)
    margin = {"l": 10, "r": 20, "t": 20 + 24 * len(product), "b": 40}
    data = [*stack, _measured(comparisons, unit, scale)]
    return figure(data, barmode="stack", xaxis=axis, shapes=shapes, margin=margin, **rows)


def parts_of(comparisons: Iterable[Comparison]) -> list[Part]:
    """Those that any prediction has at its peak, from the start of the bars on."""
    present = {component.part for c in comparisons if c.profile for component in c.profile.peak if component.bytes}
    return [part for part in PARTS if part in present]


def _part(comparisons: Sequence[Comparison], part: Part, unit: str, scale: int) -> Figure:
    sizes = [c.profile.bytes_of(part) / scale if c.profile else 0 for c in comparisons]
    texts = [f"{name(c)}<br>{part.value} {size:.2f} {unit}" for c, size in zip(comparisons, sizes, strict=True)]
    return bars(sizes, texts, BAR, PARTS[part], name=part.value)


def _measured(comparisons: Sequence[Comparison], unit: str, scale: int) -> Figure:
    """The device's peak, or on a CPU that of the tensors: what the bar beside it predicts."""
    seen = [c.measured.device_bytes or c.measured.allocated_bytes for c in comparisons]
    texts = [f"{name(c)}<br>measured {(size or 0) / scale:.2f} {unit}, {c.record.measurement.outcome}"
             for c, size in zip(comparisons, seen, strict=True)]  # fmt: skip
    sizes = [None if size is None else size / scale for size in seen]
    marker = {"symbol": "diamond", "size": 11, "color": MEASURED, "line": {"width": 1.5, "color": "#fff"}}
    return points("measured", sizes, list(range(len(seen))), text=texts, marker=marker, showlegend=False)


def _capacities(comparisons: Sequence[Comparison], top: int, scale: int) -> tuple[list[Figure], list[Figure]]:
    """A line where the card ends, for each stretch of runs that had as much of it; words alone where that is far."""
    had = [card.memory_bytes if (card := device_of(c.record.case, card_of(c.record))) else 0 for c in comparisons]
    stretches = [(size, [row for row, _ in rows]) for size, rows in groupby(enumerate(had), lambda each: each[1])]
    style, near = {"color": LIMIT, "width": 2, "dash": "dash"}, FAR * max(top, 1)
    shapes = [upright(size / scale, style, y0=rows[0] - 0.7, y1=rows[-1] + 0.3)
              for size, rows in stretches if 0 < size <= near]  # fmt: skip
    texts = sorted(human_bytes(size) + ("" if size <= near else ", far to the right") for size in set(had) - {0})
    text = f"╌╌ {plain(comparisons[0].record.environment.product)}: {', '.join(texts)}"
    corner = {"x": 1, "xref": "paper", "y": 1, "yref": "paper", "xanchor": "right", "yanchor": "bottom", "yshift": 4}
    return shapes, [words(text, font={"color": LIMIT}, **corner)] if texts else []


# ── rows ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def name(comparison: Comparison) -> str:
    """The case, as a chart can show it."""
    text = comparison.record.case.id
    return plain(text if len(text) <= LONGEST_NAME else f"{text[: LONGEST_NAME - 1]}…")


def _rows(comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """A row a run, by its number: two may have one name. The name is above the bar, so a phone has room for both."""
    names = [words(name(c) + _ended(c), x=0, y=row - BAR / 2, xref="paper", xanchor="left", yanchor="bottom")
             for row, c in enumerate(comparisons)]  # fmt: skip
    axis = {"range": [len(comparisons) - 0.6, -0.75], "showticklabels": False, "showgrid": False, "zeroline": False}
    return {"annotations": names, "yaxis": axis, "height": AROUND_PX + ROW_PX * len(comparisons)}


def _ended(comparison: Comparison) -> str:
    outcome = comparison.record.measurement.outcome
    return "" if outcome is Outcome.OK else f" · <i>{outcome}</i>"


# ── predicted against measured ──────────────────────────────────────────────────────────────────────────────────────


def scatter_figure(comparisons: Sequence[Comparison]) -> Figure:
    """Allocated peaks of every run that ended well, on logarithmic axes, with ±5 % around the diagonal."""
    runs = [c for c in comparisons if c.errors.allocated is not None]
    sizes = [size for c in runs for size in (c.measured.allocated_bytes, c.predicted.allocated_bytes) if size]
    methods = list(dict.fromkeys(c.record.case.recipe.method for c in runs))
    least, most = min(sizes, default=GIB) / 1.3, max(sizes, default=GIB) * 1.3
    traces = [_diagonal("predicted = measured", least, most, 1, "solid"), _diagonal("±5 %", least, most, 1.05, "dot"),
              _diagonal("±5 %", least, most, 0.95, "dot", showlegend=False)]  # fmt: skip
    traces += [_of_method(runs, method, number) for number, method in enumerate(methods)]
    axis = {"type": "log", "range": [math.log10(least), math.log10(most)], **_doublings(least, most)}
    xaxis, yaxis = ({**axis, "title": {"text": f"{which}, allocated"}} for which in ("measured", "predicted"))
    return figure(traces, 480, xaxis=xaxis, yaxis=yaxis)


def _diagonal(name: str, least: float, most: float, factor: float, dash: str, **more: Any) -> Figure:
    """Where predictions are so many times what was measured."""
    style = {"color": INK, "width": 1, "dash": dash}
    return line(name, [least, most], [least * factor, most * factor], style, **more)


def _doublings(least: float, most: float) -> dict[str, Any]:
    """Ticks at powers of two, which are round in bytes; so few of them that they have room."""
    powers = range(math.floor(math.log2(least)), math.ceil(math.log2(most)) + 1)
    chosen = [2**power for power in powers if power % math.ceil(len(powers) / MOST_TICKS) == 0]
    return {"tickvals": chosen, "ticktext": [human_bytes(size).replace(".00", "") for size in chosen]}


def _of_method(runs: Sequence[Comparison], method: str, number: int) -> Figure:
    chosen = [c for c in runs if c.record.case.recipe.method == method]
    measured, predicted = ([(c.measured if seen else c.predicted).allocated_bytes or 0 for c in chosen]
                           for seen in (True, False))  # fmt: skip
    texts = [f"{plain(c.record.suite)}: {name(c)}<br>measured {human_bytes(x)}, predicted {human_bytes(y)}, "
             f"{c.errors.allocated:+.2%}" for c, x, y in zip(chosen, measured, predicted, strict=True)]  # fmt: skip
    colour, symbol = SERIES[number % len(SERIES)], SYMBOLS[number // len(SERIES) % len(SYMBOLS)]
    marker = {"size": 10, "color": colour, "line": {"width": 1, "color": "#fff"}, "symbol": symbol}
    return points(plain(method), measured, predicted, text=texts, marker=marker)


# ── step time ───────────────────────────────────────────────────────────────────────────────────────────────────────


def step_figure(comparisons: Sequence[Comparison]) -> Figure | None:
    """A bar a case that ended well: the median step, from the fastest to the slowest. None where nothing was timed."""
    chosen = [c for c in comparisons if c.record.measurement.outcome is Outcome.OK and c.record.measurement.step_s]
    if not chosen:
        return None
    steps = [c.record.measurement.step_s for c in chosen]
    middles = [median(step) for step in steps]
    texts = [f"{name(c)}<br>{middle:.3f} s" for c, middle in zip(chosen, middles, strict=True)]
    spread = {
        "type": "data", "symmetric": False, "color": INK, "thickness": 1.5,
        "array": [max(step) - middle for step, middle in zip(steps, middles, strict=True)],
        "arrayminus": [middle - min(step) for step, middle in zip(steps, middles, strict=True)],
    }  # fmt: skip
    axis = {"title": {"text": "seconds: median, fastest, slowest"}, "rangemode": "tozero"}
    return figure([bars(middles, texts, BAR, DEVICE, error_x=spread)], xaxis=axis, **_rows(chosen))


# ── memory over time ────────────────────────────────────────────────────────────────────────────────────────────────


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
    device, process = [each.used_bytes for each in samples], [each.process_bytes for each in samples]
    unit, scale = unit_of([*device, *process])
    traces = [
        points(name, [each.time_s for each in samples], [None if size is None else size / scale for size in sizes],
               f"%{{x:.2f}} s<br>%{{y:.2f}} {unit}<extra>{name}</extra>", mode="lines",
               line={"color": colour, "shape": "hv"})
        for name, sizes, colour in (("device", device, DEVICE), ("process", process, PROCESS))
        if any(size is not None for size in sizes)
    ]  # fmt: skip
    marks = [(time_s, phase.value) for time_s, phase in found.marks if math.isfinite(time_s)]
    traces.append(points(
        "a phase begins", [time_s for time_s, _ in marks], [0] * len(marks), "%{x:.2f} s<br>%{text}<extra></extra>",
        text=[phase for _, phase in marks], marker={"symbol": "triangle-up", "size": 9, "color": INK}, cliponaxis=False,
    ))  # fmt: skip
    yaxis = {"title": {"text": unit}, "rangemode": "tozero"}
    return figure(traces, 380, xaxis={"title": {"text": "seconds"}}, yaxis=yaxis)
