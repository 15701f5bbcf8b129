"""What the figures of all pages have in common: the layout, the colours of parts, names that are inert."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from peftbench.base.visible import one_line
from peftbench.memory import Part
from peftbench.report.format.sheet import Figure

COLOURS = {
    Part.WEIGHTS: "#bcc4ce",
    Part.LOADING: "#d3c7b1",
    Part.QUANTIZATION_CONSTANTS: "#9aa5b3",
    Part.UNQUANTIZED: "#dbe0e6",
    Part.EXPERTS: "#aab4c0",
    Part.ADAPTERS: "#59a14f",
    Part.OPTIMIZER: "#a679a9",
    Part.WORKSPACE: "#5f6b7a",
    Part.GATHERED: "#b6992d",
    Part.BUCKETS: "#499894",
    Part.GRADIENTS: "#f28e2c",
    Part.ACCUMULATED: "#ffbe7d",
    Part.CHECKPOINTS: "#76b7b2",
    Part.KV_CACHE: "#9c755f",
    Part.ACTIVATIONS: "#4e79a7",
    Part.DEQUANTIZATION: "#edc949",
    Part.LOGITS: "#e15759",
    Part.OPTIMIZER_TEMPORARIES: "#ff9da7",
}
"""Tensors from the bottom of a stack up: what never changes first and in grey, what comes and goes at the top."""
SERIES = (
    "#4e79a7", "#f28e2c", "#e15759", "#76b7b2", "#59a14f", "#edc949", "#af7aa1", "#ff9da7", "#9c755f", "#bab0ab",
)  # fmt: skip
"""Colours of methods, or of variants."""
INK = "#7b8794"
"""The colour of lines; the page's style sheet gives every text the colour of the theme."""
SHOWN = "%{text}<extra></extra>"
"""The mouse is shown the text of a point."""


def figure(data: Sequence[Figure], height: int, **layout: Any) -> Figure:
    """Traces with the layout that all charts have in common; the page's own colour shows through."""
    axis = {"gridcolor": "rgba(123,135,148,0.25)", "zerolinecolor": "rgba(123,135,148,0.4)", "automargin": True}
    axes = {name: {**axis, **layout.pop(name, {})} for name in ("xaxis", "yaxis")}
    return {"data": data, "layout": {
        "height": height, "margin": {"l": 10, "r": 20, "t": 20, "b": 40}, "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)", "font": {"color": INK, "family": "system-ui, sans-serif", "size": 12},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "traceorder": "normal"},
        "hovermode": "closest", "hoverlabel": {"namelength": -1}, **axes, **layout,
    }}  # fmt: skip


def points(name: str, x: Sequence[Any], y: Sequence[Any], hover: str = SHOWN, **more: Any) -> Figure:
    """Points that show a text to the mouse."""
    return {"type": "scatter", "mode": "markers", "name": name, "x": x, "y": y, "hovertemplate": hover, **more}


def line(name: str, x: Sequence[Any], y: Sequence[Any], style: Figure, **more: Any) -> Figure:
    """A line that the mouse does not see."""
    drawn = {"type": "scatter", "mode": "lines", "name": name, "x": x, "y": y, "line": style}
    return {**drawn, "hoverinfo": "skip", **more}


def bars(sizes: Sequence[Any], texts: Sequence[str], width: float, colour: str, **more: Any) -> Figure:
    """A bar a row, by its number, that shows a text of its own to the mouse."""
    return {
        "type": "bar", "orientation": "h", "x": sizes, "y": list(range(len(sizes))), "width": width, "text": texts,
        "marker": {"color": colour}, "showlegend": False, "textposition": "none", "hovertemplate": SHOWN, **more,
    }  # fmt: skip


def upright(x: float, style: Figure, **more: Any) -> Figure:
    """A shape: a line from the bottom of the plot to its top, or between y0 and y1."""
    ends = {} if "y0" in more else {"y0": 0, "y1": 1, "yref": "paper"}
    return {"type": "line", "x0": x, "x1": x, "line": style, **ends, **more}


def words(text: str, **where: Any) -> Figure:
    """An annotation without an arrow."""
    return {"text": text, "showarrow": False, **where}


def plain(name: str) -> str:
    """A name inside a chart, where plotly would read tags and entities."""
    return one_line(name).replace("<", "‹").replace(">", "›").replace("&", "&amp;")
