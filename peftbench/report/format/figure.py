"""What the figures of all pages have in common: the layout, the colours of parts, names that are inert."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from peftbench.memory import Part
from peftbench.report.format.sheet import Figure

COLOURS = {
    Part.WEIGHTS: "#bcc4ce",
    Part.QUANTIZATION_CONSTANTS: "#9aa5b3",
    Part.UNQUANTIZED: "#dbe0e6",
    Part.EXPERTS: "#aab4c0",
    Part.ADAPTERS: "#59a14f",
    Part.OPTIMIZER: "#a679a9",
    Part.WORKSPACE: "#5f6b7a",
    Part.GATHERED: "#b6992d",
    Part.BUCKETS: "#499894",
    Part.GRADIENTS: "#f28e2c",
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
"""One a method or a variant."""
INK = "#7b8794"
"""Of lines; the page's style sheet gives every text the colour of the theme."""


def layout(height: int, **more: Any) -> Figure:
    """What all charts have in common; the page's own colour shows through."""
    axis = {"gridcolor": "rgba(123,135,148,0.25)", "zerolinecolor": "rgba(123,135,148,0.4)", "automargin": True}
    axes = {name: {**axis, **more.pop(name, {})} for name in ("xaxis", "yaxis")}
    return {
        "height": height, "margin": {"l": 10, "r": 20, "t": 20, "b": 40}, "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)", "font": {"color": INK, "family": "system-ui, sans-serif", "size": 12},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "traceorder": "normal"},
        "hovermode": "closest", "hoverlabel": {"namelength": -1}, **axes, **more,
    }  # fmt: skip


def points(name: str, x: Sequence[Any], y: Sequence[Any], texts: Sequence[str], **marker: Any) -> Figure:
    """Points that show a text of their own to the mouse."""
    return {
        "type": "scatter", "mode": "markers", "name": name, "x": x, "y": y, "text": texts, "marker": marker,
        "hovertemplate": "%{text}<extra></extra>",
    }  # fmt: skip


def line(name: str, x: Sequence[Any], y: Sequence[Any], dash: str) -> Figure:
    """A thin line that the mouse does not see."""
    style = {"color": INK, "width": 1, "dash": dash}
    return {"type": "scatter", "mode": "lines", "name": name, "x": x, "y": y, "line": style, "hoverinfo": "skip"}


def bars(sizes: Sequence[Any], texts: Sequence[str], width: float, colour: str, **more: Any) -> Figure:
    """A bar a row, by its number, that shows a text of its own to the mouse."""
    return {
        "type": "bar", "orientation": "h", "x": sizes, "y": list(range(len(sizes))), "width": width, "text": texts,
        "marker": {"color": colour}, "showlegend": False, "textposition": "none",
        "hovertemplate": "%{text}<extra></extra>", **more,
    }  # fmt: skip


def plain(name: str) -> str:
    """A name inside a chart, where plotly would read tags and entities."""
    return name.replace("<", "‹").replace(">", "›").replace("&", "&amp;")
