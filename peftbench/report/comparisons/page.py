"""Comparisons of variants on the page of runs: tables, and charts of what each loses and how much longer it takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from peftbench.base.paired import Interval
from peftbench.base.visible import one_line
from peftbench.check.runs.effects import LatencyRatio, QualityEffect, latency_ratios, quality_effects
from peftbench.inputs.comparison import LatencyCase
from peftbench.records.comparison import ComparisonRecord, QualityResult
from peftbench.records.environment import Outcome
from peftbench.report.comparisons.table import comparison_tables, comparison_title, quantized_effect
from peftbench.report.format.figure import INK, SERIES, figure, plain, points, upright
from peftbench.report.format.html import Section
from peftbench.report.format.sheet import Figure

COLOUR, OTHER = SERIES[:2]
ROW_PX, AROUND_PX = 34, 90
CHARTED = 20
"""Comparisons that have charts; all have their tables."""

EXPLAINED = (
    "Every variant met the same blocks of text, or ran once in every round; intervals are of the differences within "
    "blocks or rounds. KL is measured against the variant named beside it. Ratios are of the processor's time where "
    "that is known. Beyond 16-bit: more than what casting the weights to 16 bit does."
)


def comparison_sections(records: Sequence[ComparisonRecord]) -> Iterator[Section]:
    """A heading for all, and those of each record."""
    if records:
        charted = f" The first {CHARTED} of {len(records):,} have charts." if len(records) > CHARTED else ""
        yield Section("Variants of one model", text=EXPLAINED + charted)
    for number, record in enumerate(records):
        failure = "" if record.outcome is Outcome.OK else one_line(f"{record.outcome}: {record.message}")
        yield Section(comparison_title(record), failure=failure, points=_facts(record))
        for place, table in enumerate(comparison_tables(record)):
            yield Section(table.title if place else "", level=3, table=table)
        for place, (title, drawn) in enumerate(_figures(record) if number < CHARTED else ()):
            yield Section(title, level=3, figure=drawn, id=f"compared-{number}-{place}")


def _facts(record: ComparisonRecord) -> list[str]:
    """What is to be known of the model and the text."""
    facts = {name: value for name, value in record.facts.items() if isinstance(value, (str, int))}
    shown = [f"{name.replace('_', ' ')}: {value}" for name, value in facts.items()]
    notes = [note for result in record.results for note in result.notes]
    return [one_line(text) for text in dict.fromkeys((*shown, *notes))]


# ── charts ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _figures(record: ComparisonRecord) -> list[tuple[str, Figure]]:
    """Titles and figures of one record."""
    if isinstance(record.case, LatencyCase):
        ratios = latency_ratios(record)
        return [("Times as long, with 95 % intervals", _ratios(ratios))] if ratios else []
    effects = [effect for effect in quality_effects(record) if effect.kl]
    found = [("KL divergence to the standard, with 95 % intervals", _divergences(effects))] if effects else []
    found += [_by_layer(effect.result) for effect in effects if effect.result.kl_by_layer]
    shown = quantized_effect(record)
    found += [_weight_errors(shown.result)] if shown else []
    return found


def _divergences(effects: Sequence[QualityEffect]) -> Figure:
    """A point a variant, on a logarithmic axis."""
    names = [f"{effect.variant} : {effect.against}" for effect in effects]
    intervals = [effect.kl for effect in effects if effect.kl]
    axis = {"type": "log", "title": {"text": "nats a token"}, "exponentformat": "power"}
    return _intervals(names, [("KL", COLOUR, intervals)], axis)


def _ratios(ratios: Sequence[LatencyRatio]) -> Figure:
    """Decode and prefill of each pair; 1 is no difference."""
    names = [f"{ratio.variant} : {ratio.against}" for ratio in ratios]
    series = [("a token", COLOUR, [r.decode_cpu or r.decode for r in ratios]),
              ("prefill", OTHER, [r.prefill for r in ratios])]  # fmt: skip
    made = _intervals(names, series, {"title": {"text": "ratio of times"}})
    made["layout"]["shapes"] = [upright(1, {"color": INK, "dash": "dot"})]
    return made


def _intervals(names: Sequence[str], series: Sequence[tuple[str, str, Sequence[Interval]]], axis: Figure) -> Figure:
    """Rows of points with error bars; the first name is on top."""
    labels = [plain(name) for name in names]
    data = [
        points(name, [i.value for i in intervals], labels, "%{y}<br>%{x:.4g}<extra></extra>",
               marker={"color": colour, "size": 9},
               error_x={"type": "data", "symmetric": False, "color": colour,
                        "array": [i.high - i.value for i in intervals],
                        "arrayminus": [i.value - i.low for i in intervals]})
        for name, colour, intervals in series
    ]  # fmt: skip
    rows = {"autorange": "reversed", "type": "category", "ticklabelstep": 1}
    height = AROUND_PX + ROW_PX * len(labels)
    return figure(data, height, xaxis=axis, yaxis=rows, showlegend=len(series) > 1)


def _by_layer(result: QualityResult) -> tuple[str, Figure]:
    names = [plain(name) for name, _ in result.kl_by_layer]
    bars = {"type": "bar", "x": names, "y": [kl for _, kl in result.kl_by_layer], "marker": {"color": COLOUR},
            "hovertemplate": "%{x}<br>KL %{y:.3g}<extra></extra>"}  # fmt: skip
    axes = {"xaxis": {"type": "category"}, "yaxis": {"title": {"text": "nats a token"}}}
    return f"KL where only one layer is in {one_line(result.variant)}", figure([bars], 280, **axes)


def _weight_errors(result: QualityResult) -> tuple[str, Figure]:
    """Every matrix, in the model's order."""
    names = [plain(layer.name) for layer in result.layers]
    errors, marker = [layer.relative_rmse for layer in result.layers], {"color": COLOUR, "size": 5}
    dots = points("", list(range(len(names))), errors, "%{text}<br>%{y:.4f}<extra></extra>", text=names, marker=marker)
    axes = {"xaxis": {"title": {"text": "matrix, from the input on"}}, "yaxis": {"title": {"text": "relative RMSE"}}}
    return f"Error of the weights in {one_line(result.variant)}", figure([dots], 280, **axes)
