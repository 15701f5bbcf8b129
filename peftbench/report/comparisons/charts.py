"""Charts of comparisons: what each variant loses, where in the model it is lost, and how much longer it takes."""

from __future__ import annotations

from collections.abc import Sequence

from peftbench.base.paired import Interval
from peftbench.check.runs.effects import LatencyRatio, QualityEffect, latency_ratios, quality_effects
from peftbench.inputs.comparison import LatencyCase
from peftbench.records.comparison import ComparisonRecord, QualityResult
from peftbench.report.comparisons.table import quantized_effect
from peftbench.report.format.figure import INK, SERIES, layout, plain
from peftbench.report.format.sheet import Figure, one_line

COLOUR, OTHER = SERIES[:2]
ROW_PX, AROUND_PX = 34, 90


def comparison_figures(record: ComparisonRecord) -> list[tuple[str, Figure]]:
    """Titles and figures of one record."""
    if isinstance(record.case, LatencyCase):
        ratios = latency_ratios(record)
        return [("Times as long, with 95 % intervals", ratio_figure(ratios))] if ratios else []
    effects = [effect for effect in quality_effects(record) if effect.kl]
    found = [("KL divergence to the standard, with 95 % intervals", kl_figure(effects))] if effects else []
    found += [_by_layer(effect.result) for effect in effects if effect.result.kl_by_layer]
    shown = quantized_effect(record)
    found += [_weight_errors(shown.result)] if shown else []
    return found


def kl_figure(effects: Sequence[QualityEffect]) -> Figure:
    """A point a variant, on a logarithmic axis."""
    names = [f"{effect.variant} : {effect.against}" for effect in effects]
    intervals = [effect.kl for effect in effects if effect.kl]
    axis = {"type": "log", "title": {"text": "nats a token"}, "exponentformat": "power"}
    return _intervals(names, [("KL", COLOUR, intervals)], axis)


def ratio_figure(ratios: Sequence[LatencyRatio]) -> Figure:
    """Decode and prefill of each pair; 1 is no difference."""
    names = [f"{ratio.variant} : {ratio.against}" for ratio in ratios]
    series = [("a token", COLOUR, [r.decode_cpu or r.decode for r in ratios]),
              ("prefill", OTHER, [r.prefill for r in ratios])]  # fmt: skip
    figure = _intervals(names, series, {"title": {"text": "ratio of times"}})
    line = {"type": "line", "x0": 1, "x1": 1, "yref": "paper", "y0": 0, "y1": 1, "line": {"color": INK, "dash": "dot"}}
    figure["layout"]["shapes"] = [line]
    return figure


def _intervals(names: Sequence[str], series: Sequence[tuple[str, str, Sequence[Interval]]], axis: Figure) -> Figure:
    """Rows of points with error bars; the first name is on top."""
    labels = [plain(one_line(name)) for name in names]
    data = [
        {
            "type": "scatter", "mode": "markers", "name": name, "y": labels, "x": [i.value for i in intervals],
            "marker": {"color": colour, "size": 9}, "hovertemplate": "%{y}<br>%{x:.4g}<extra></extra>",
            "error_x": {"type": "data", "symmetric": False, "color": colour,
                        "array": [i.high - i.value for i in intervals],
                        "arrayminus": [i.value - i.low for i in intervals]},
        }
        for name, colour, intervals in series
    ]  # fmt: skip
    rows = {"autorange": "reversed", "type": "category", "ticklabelstep": 1}
    height = AROUND_PX + ROW_PX * len(labels)
    return {"data": data, "layout": layout(height, xaxis=axis, yaxis=rows, showlegend=len(series) > 1)}


def _by_layer(result: QualityResult) -> tuple[str, Figure]:
    names = [plain(one_line(name)) for name, _ in result.kl_by_layer]
    bars = {"type": "bar", "x": names, "y": [kl for _, kl in result.kl_by_layer], "marker": {"color": COLOUR},
            "hovertemplate": "%{x}<br>KL %{y:.3g}<extra></extra>"}  # fmt: skip
    axes = {"xaxis": {"type": "category"}, "yaxis": {"title": {"text": "nats a token"}}}
    title = f"KL where only one layer is in {one_line(result.variant)}"
    return title, {"data": [bars], "layout": layout(280, **axes)}


def _weight_errors(result: QualityResult) -> tuple[str, Figure]:
    """Every matrix, in the model's order."""
    names = [plain(one_line(layer.name)) for layer in result.layers]
    dots = {"type": "scatter", "mode": "markers", "x": list(range(len(names))), "text": names,
            "y": [layer.relative_rmse for layer in result.layers], "marker": {"color": COLOUR, "size": 5},
            "hovertemplate": "%{text}<br>%{y:.4f}<extra></extra>"}  # fmt: skip
    axes = {"xaxis": {"title": {"text": "matrix, from the input on"}}, "yaxis": {"title": {"text": "relative RMSE"}}}
    return f"Error of the weights in {one_line(result.variant)}", {"data": [dots], "layout": layout(280, **axes)}
