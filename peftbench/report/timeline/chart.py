"""The memory timeline of a dry run as a figure: parts stacked over the events, phases marked, the card's limit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from peftbench.base.units import GIB, human_bytes
from peftbench.memory import Phase
from peftbench.report.format.figure import COLOURS, SHOWN, line, plain, upright, words
from peftbench.report.format.sheet import Figure

if TYPE_CHECKING:
    from peftbench.dryrun.trace.replay import Failure
    from peftbench.dryrun.trace.timeline import HolderGroup, Point
    from peftbench.dryrun.trace.trace import Mark
    from peftbench.inputs.card.gpu import GpuSpec

INK, MUTED, RULE, LIMIT = "#1f2933", "#52606d", "#cbd2d9", "#b4232a"
BACKGROUND = "rgba(255,255,255,0.8)"
"""Behind words in the plot, so that they can be read over a line."""
NARROW_PX, LETTER_PX = 500, 6.5
"""The plot in a window of 800 pixels, and a letter of its labels."""
_NAMES = {
    Phase.LOAD: ("load",), Phase.FORWARD: ("forward", "fwd"), Phase.BACKWARD: ("backward", "bwd"),
    Phase.STEP: ("optimizer", "opt"), Phase.PREFILL: ("prefill",), Phase.DECODE: ("decode",),
}  # fmt: skip
MOST_FLUSHES = 8
"""So many calls of empty_cache() are named in the chart; more would cover it."""


class Band(NamedTuple):
    """Events that belong together: a phase, or a step."""

    start: int
    end: int
    names: tuple[str, ...]
    """The longest that has room is written."""


class Peak(NamedTuple):
    """The highest moment, and the largest of what is alive then."""

    event: int
    held: Sequence[HolderGroup]


def chart(
    points: Sequence[Point], marks: Sequence[Mark], peak: Peak, gpu: GpuSpec | None, failure: Failure | None = None
) -> Figure:
    """The figure; a failure is where the card would run out of memory."""
    highest = next(point for point in points if point.event == peak.event)
    top, extent = _top(points, gpu), (points[0].event, points[-1].event)
    flushes = [mark.position for mark in marks if mark.phase is None and extent[0] <= mark.position <= extent[1]]
    drawn = (_bands(marks, extent), _flushes(flushes), _limit(gpu, top), _failure(failure, extent, top))
    shapes, annotations = ([each for made in drawn for each in made[place]] for place in (0, 1))
    traces = [*_areas(points), _allocated(points, peak), _reserved(points)]
    return {"data": traces, "layout": _layout(extent, top, shapes, [*annotations, _peak_label(highest, extent)])}


# ── what is drawn ───────────────────────────────────────────────────────────────────────────────────────────


def _areas(points: Sequence[Point]) -> list[Figure]:
    """A stacked area for each part that is ever there; a size holds until the next event."""
    present = {part for point in points for part in point.parts}
    return [
        line(part.value, [point.event for point in points], [_gib(point.parts.get(part, 0)) for point in points],
             {"width": 0, "color": colour, "shape": "hv"}, stackgroup="parts", fillcolor=colour)
        for part, colour in COLOURS.items() if part in present
    ]  # fmt: skip


def _reserved(points: Sequence[Point]) -> Figure:
    sizes = [_gib(point.reserved_bytes) for point in points]
    return line("reserved", [point.event for point in points], sizes, {"width": 1.5, "color": INK, "shape": "hv"})


def _allocated(points: Sequence[Point], peak: Peak) -> Figure:
    """The line along the top of the stack, which shows the narrow peaks too and has the text for the mouse."""
    lines = [f"{human_bytes(group.bytes):>11}  {_from(group.like.operation, group.like.module)}" for group in peak.held]
    held = "<br><br><b>the peak</b>, held by<br>" + "<br>".join(lines)
    return {
        "type": "scatter", "mode": "lines", "name": "allocated",
        "line": {"width": 0.7, "color": MUTED, "shape": "hv"},
        "x": [point.event for point in points],
        "y": [_gib(point.allocated_bytes) for point in points],
        "text": [label(point) + (held if point.event == peak.event else "") for point in points],
        "hovertemplate": SHOWN,
    }  # fmt: skip


def label(point: Point) -> str:
    """Where the event is, every part that is there, and what was allocated last; in plotly's kind of HTML."""
    order = [part for part in reversed(COLOURS) if point.parts.get(part)]
    rows = [(f'<span style="color:{COLOURS[part]}">■</span> {part.value}', point.parts[part]) for part in order]
    rows += [("<b>allocated</b>", point.allocated_bytes), ("reserved", point.reserved_bytes)]
    where = f"event {point.event:,} · {when(point.step, point.phase)}"
    sizes = "<br>".join(f"{human_bytes(size):>11}  {name}" for name, size in rows)
    return f"{where}<br>{sizes}<br>last: {_from(point.operation, point.module)}"


def when(step: int, phase: Phase) -> str:
    """Steps are counted from 1; loading and the prefill are in none, and each decoded token is one."""
    if phase in (Phase.LOAD, Phase.PREFILL):
        return str(phase)
    return f"{phase} of {'token' if phase is Phase.DECODE else 'step'} {step + 1}"


def _from(operation: str, module: str) -> str:
    return plain(f"{operation} in {module or 'the model itself'}")


def _peak_label(peak: Point, extent: tuple[int, int]) -> Figure:
    """Beside the peak, on the side that has more room."""
    right = _in_left_half(peak.event, extent)
    return {
        "x": peak.event, "y": _gib(peak.allocated_bytes), "text": f"peak {human_bytes(peak.allocated_bytes)}",
        "ax": 30 if right else -30, "ay": 0, "xanchor": "left" if right else "right", "arrowhead": 2, "arrowwidth": 1,
        "font": {"size": 12, "color": INK}, "bgcolor": BACKGROUND,
    }  # fmt: skip


def _in_left_half(event: int, extent: tuple[int, int]) -> bool:
    return event - extent[0] < (extent[1] - extent[0]) / 2


# ── where it happens ────────────────────────────────────────────────────────────────────────────────────────


def _bands(marks: Sequence[Mark], extent: tuple[int, int]) -> tuple[list[Figure], list[Figure]]:
    """Every other step shaded, a line where a phase begins, and their names in two rows above the plot."""
    phases, steps = phase_bands(marks, extent), step_bands(marks, extent)
    shade = {"type": "rect", "y0": 0, "y1": 1, "yref": "paper", "layer": "below", "fillcolor": "#f3f5f7",
             "line": {"width": 0}}  # fmt: skip
    shapes: list[Figure] = [{**shade, "x0": band.start, "x1": band.end} for band in steps[1::2]]
    shapes += [upright(band.start, {"color": RULE, "width": 1}, layer="below") for band in phases[1:]]
    annotations = [_above(band, extent, 4) for band in phases] + [_above(band, extent, 20, bold=True) for band in steps]
    return shapes, [annotation for annotation in annotations if annotation]


def phase_bands(marks: Sequence[Mark], extent: tuple[int, int]) -> list[Band]:
    """The phases within the extent; those of one kind that follow each other, as decoding does, are one."""
    found: list[Band] = []
    for mark, end in _stretches(marks, extent):
        assert mark.phase is not None
        names = _NAMES[mark.phase]
        if found and found[-1].names == names:
            found[-1] = found[-1]._replace(end=end)
        else:
            found.append(Band(max(mark.position, extent[0]), end, names))
    return found


def step_bands(marks: Sequence[Mark], extent: tuple[int, int]) -> list[Band]:
    """The training steps within the extent."""
    found: dict[int, Band] = {}
    for mark, end in _stretches(marks, extent):
        if mark.phase in (Phase.FORWARD, Phase.BACKWARD, Phase.STEP):
            names = (f"step {mark.step + 1}", str(mark.step + 1))
            start = found[mark.step].start if mark.step in found else max(mark.position, extent[0])
            found[mark.step] = Band(start, end, names)
    return list(found.values())


def _stretches(marks: Sequence[Mark], extent: tuple[int, int]) -> list[tuple[Mark, int]]:
    """Each phase that has events in the extent, and where it ends."""
    phases = [mark for mark in marks if mark.phase is not None]
    ends = [mark.position for mark in phases[1:]] + [extent[1]]
    return [(mark, end) for mark, end in zip(phases, ends, strict=True) if end > max(mark.position, extent[0])]


def _above(band: Band, extent: tuple[int, int], shift: int, bold: bool = False) -> Figure | None:
    """The name of a band above its middle; None where not even the short one has room."""
    room = NARROW_PX * (band.end - band.start) / max(extent[1] - extent[0], 1)
    name = next((name for name in band.names if len(name) * LETTER_PX <= room), None)
    if name is None:
        return None
    where = {"x": (band.start + band.end) / 2, "y": 1, "yref": "paper", "yanchor": "bottom", "yshift": shift}
    return words(f"<b>{name}</b>" if bold else name, font={"size": 11, "color": MUTED}, **where)


def _flushes(events: Sequence[int]) -> tuple[list[Figure], list[Figure]]:
    """A dotted line where the cache is emptied."""
    shapes = [upright(event, {"color": INK, "width": 1, "dash": "dot"}, layer="below") for event in events]
    where = {"xanchor": "right", "y": 0, "yanchor": "bottom", "textangle": -90, "yref": "paper"}
    texts = [_text("empty_cache()", INK, x=event, **where) for event in events]
    return shapes, texts if len(events) <= MOST_FLUSHES else []


def _limit(gpu: GpuSpec | None, top: float) -> tuple[list[Figure], list[Figure]]:
    """What torch can reserve on the card; where that is far above everything, only the words."""
    if gpu is None:
        return [], []
    usable = gpu.usable_bytes / GIB
    text, left = f"{gpu.name}: {human_bytes(gpu.usable_bytes)} usable", {"x": 0, "xref": "paper", "xanchor": "left"}
    if usable > top:
        return [], [_text(f"{text}, far above ↑", LIMIT, y=top, yanchor="top", **left)]
    across = {"type": "line", "x0": 0, "x1": 1, "xref": "paper", "y0": usable, "y1": usable,
              "line": {"color": LIMIT, "width": 1.5, "dash": "dash"}}  # fmt: skip
    return [across], [_text(text, LIMIT, y=usable, yanchor="bottom", yshift=2, **left)]


def _failure(failure: Failure | None, extent: tuple[int, int], top: float) -> tuple[list[Figure], list[Figure]]:
    """Where the card would run out of memory."""
    if failure is None or not extent[0] <= failure.position <= extent[1]:
        return [], []
    side = "left" if _in_left_half(failure.position, extent) else "right"
    text = _text("out of memory", LIMIT, x=failure.position, xanchor=side, y=top, yanchor="top")
    return [upright(failure.position, {"color": LIMIT, "width": 1.5}, layer="above")], [text]


def _text(text: str, colour: str, **where: Any) -> Figure:
    return words(text, font={"size": 12, "color": colour}, bgcolor=BACKGROUND, **where)


# ── the frame ───────────────────────────────────────────────────────────────────────────────────────────────


def _top(points: Sequence[Point], gpu: GpuSpec | None) -> float:
    """GiB at the upper edge: above what is reserved, and above the card's limit unless that is far off."""
    highest = max(max(point.reserved_bytes, point.allocated_bytes) for point in points)
    usable = gpu.usable_bytes if gpu else 0
    return _gib(max(highest, usable if usable < 2 * highest else 0)) * 1.08


def _layout(extent: tuple[int, int], top: float, shapes: list[Figure], annotations: list[Figure]) -> Figure:
    mouse = {"family": "ui-monospace, Menlo, Consolas, monospace", "size": 11, "color": INK}
    spike = {"showspikes": True, "spikemode": "across", "spikethickness": 1, "spikecolor": MUTED, "spikedash": "solid"}
    axis = {"gridcolor": "#e9ecef", "zerolinecolor": RULE, "linecolor": RULE, "ticks": "outside", "tickcolor": RULE}
    return {
        "autosize": True, "height": 540, "margin": {"l": 60, "r": 10, "t": 44, "b": 50},
        "paper_bgcolor": "white", "plot_bgcolor": "white",
        "font": {"family": "system-ui, sans-serif", "size": 12, "color": INK},
        "hovermode": "x", "hoverdistance": -1, "spikedistance": -1,
        "hoverlabel": {"font": mouse, "bgcolor": "white", "bordercolor": RULE, "align": "left"},
        "legend": {"traceorder": "reversed", "font": {"size": 12}},
        "xaxis": {**axis, **spike, "range": list(extent), "title": {"text": "event: allocations and frees in order"},
                  "tickformat": ",d", "showgrid": False},
        "yaxis": {**axis, "range": [0, top], "title": {"text": "GiB"}},
        "shapes": shapes, "annotations": annotations,
    }  # fmt: skip


def _gib(size_bytes: int) -> float:
    """GiB to a tenth of a MiB, which is finer than a pixel."""
    return round(size_bytes / GIB, 4)
