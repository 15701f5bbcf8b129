"""Comparisons of variants as tables: quality with its intervals, latency with its ratios."""

from __future__ import annotations

import math
from statistics import median

from peftbench.base.paired import Interval
from peftbench.base.units import human_bytes
from peftbench.check.runs.effects import (
    LatencyRatio,
    QualityEffect,
    latency_ratios,
    quality_effects,
    tokens_per_s,
)
from peftbench.decide.suite.predict_case import predict_variant
from peftbench.inputs.comparison import ComparisonCase, LatencyCase, Variant
from peftbench.records.comparison import ComparisonRecord, LatencyResult
from peftbench.report.format.sheet import UNKNOWN, Table, one_line

WORST_LAYERS = 5
MOST_DIGITS = 5
EIGHT_BITS = 7.0
"""More bits than this are not a 4-bit type, constants included."""


def variants_table(case: ComparisonCase) -> Table:
    """What is going to be compared."""
    rows = [(v.name, _weights(v), v.route, _size(predict_variant(case, v))) for v in case.variants]
    return Table("", ("case", "weights", "adapter", "predicted alone"), rows, "lllr")


def comparison_tables(record: ComparisonRecord) -> list[Table]:
    """Those of one record; none where nothing was measured."""
    if not record.results:
        return []
    if isinstance(record.case, LatencyCase):
        return [*_latency_tables(record), *_operations(record)]
    return [_quality_table(record), *_worst_layers(record)]


def comparison_title(record: ComparisonRecord) -> str:
    """ "quality-smoke: small-llama on AMD EPYC · 1 thread · torch 2.13.0 · 2026-11-25"."""
    place = record.environment
    where = f"driver {place.driver}" if place.driver else f"{place.threads} thread{'s' * (place.threads > 1)}"
    parts = (where, f"torch {place.versions.get('torch', '?')}", place.started_at[:10])
    own = record.case.model.startswith(f"{record.suite}'s")  # a config that is written out in the suite has no name
    model = "" if own else f": {record.case.model}"
    return one_line(f"{record.suite}{model} on {place.product} · {' · '.join(parts)}")


# ── quality ─────────────────────────────────────────────────────────────────────────────────────────────────────────

QUALITY = ("case", "against", "ppl", "ratio", "KL, nats", "top-1", ">16 bit")


def quality_cells(effect: QualityEffect) -> tuple[str, ...]:
    """One variant as text, under QUALITY."""
    beyond = {True: "yes", False: "no", None: UNKNOWN}[effect.beyond_floor]
    top1 = f"{effect.top1.value:.1%}" if effect.top1 else UNKNOWN
    return (
        one_line(effect.variant), one_line(effect.against) or UNKNOWN, f"{effect.perplexity:.2f}",
        interval_text(effect.ratio), interval_text(effect.kl), top1, beyond,
    )  # fmt: skip


def interval_text(interval: Interval | None) -> str:
    """ "1.261 ±0.031": half of the 95 % interval, to two digits, and as many of the figure; "4.1e-06 ±2e-07"."""
    if interval is None:
        return UNKNOWN
    half = (interval.high - interval.low) / 2
    if abs(interval.value) < 10.0 ** (1 - MOST_DIGITS) and interval.value:
        return f"{interval.value:.1e} ±{half:.0e}"
    digits = min(max(1 - math.floor(math.log10(half)), 0), MOST_DIGITS) if half > 0 else 3
    return f"{interval.value:.{digits}f} ±{half:.{digits}f}"


def quantized_effect(record: ComparisonRecord) -> QualityEffect | None:
    """The first variant with quantized weights and figures of each matrix: what people look at first."""
    quantized = {variant.name for variant in record.case.variants if variant.quantization}
    effects = (effect for effect in quality_effects(record) if effect.variant in quantized)
    four_bit_first = sorted(effects, key=lambda effect: (effect.result.bits_per_parameter or math.inf) > EIGHT_BITS)
    return next((effect for effect in four_bit_first if effect.result.layers), None)


def _quality_table(record: ComparisonRecord) -> Table:
    rows = [quality_cells(effect) for effect in quality_effects(record)]
    return Table(comparison_title(record), QUALITY, rows, "llrrrrr")


def _worst_layers(record: ComparisonRecord) -> list[Table]:
    """The matrices that lose most, of the first variant that is quantized."""
    effect = quantized_effect(record)
    if effect is None:
        return []
    worst = sorted(effect.result.layers, key=lambda layer: -layer.relative_rmse)[:WORST_LAYERS]
    rows = [(one_line(layer.name), f"{layer.relative_rmse:.4f}", f"{layer.sqnr_db:.2f}") for layer in worst]
    return [Table(f"matrices that {one_line(effect.variant)} changes most", ("matrix", "relative RMSE", "SQNR, dB"),
                  rows, "lrr")]  # fmt: skip


# ── latency ─────────────────────────────────────────────────────────────────────────────────────────────────────────

LATENCY = ("case", "prefill", "a token", "tokens/s", "weights", "+peak", "load", "merge", "|Δlogit|")
RATIOS = ("case", "to", "a token", "by CPU time", "prefill")


def latency_cells(result: LatencyResult, batch_size: int) -> tuple[str, ...]:
    """One variant as text, under LATENCY: medians over all rounds."""
    difference = result.max_logit_difference
    return (
        one_line(result.variant), _milliseconds(median(result.prefill_s)), _milliseconds(median(result.decode_s)),
        f"{tokens_per_s(result, batch_size):.1f}", _size(result.weights_bytes), _size(result.peak_bytes),
        _seconds(result.load_s), _seconds(result.merge_s), UNKNOWN if difference is None else f"{difference:.2g}",
    )  # fmt: skip


def ratio_cells(ratio: LatencyRatio) -> tuple[str, ...]:
    """One pair as text, under RATIOS."""
    intervals = (ratio.decode, ratio.decode_cpu, ratio.prefill)
    return (one_line(ratio.variant), one_line(ratio.against), *map(interval_text, intervals))


def _latency_tables(record: ComparisonRecord) -> list[Table]:
    assert isinstance(record.case, LatencyCase)
    results = [result for result in record.results if isinstance(result, LatencyResult)]
    rows = [latency_cells(result, record.case.batch_size) for result in results]
    ratios = [ratio_cells(ratio) for ratio in latency_ratios(record)]
    tables = [Table(comparison_title(record), LATENCY, rows, "lrrrrrrrr")]
    if ratios:
        title = f"times as long, median of {len(results[0].decode_s)} rounds ± half of the 95 % interval"
        tables.append(Table(title, RATIOS, ratios, "llrrr"))
    return tables


def _operations(record: ComparisonRecord) -> list[Table]:
    """set_adapter, hotswap and the like."""
    rows = [
        (one_line(result.variant), one_line(name), _milliseconds(median(seconds)), str(len(seconds)))
        for result in record.results if isinstance(result, LatencyResult)
        for name, seconds in result.operations if seconds
    ]  # fmt: skip
    return [Table("operations on adapters", ("case", "operation", "median", "times"), rows, "llrr")] if rows else []


def _weights(variant: Variant) -> str:
    stored = variant.quantization
    if stored is None:
        return str(variant.dtype)
    block = f"/{stored.blocksize}" if stored.blocksize else ""
    double = " DQ" if stored.double_quant and "double_quant" in stored.scheme.options else ""
    return f"{stored.quant_type}{block}{double}, {variant.dtype}"


def _size(size: int | None) -> str:
    return UNKNOWN if size is None else human_bytes(size)


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.2f} ms"


def _seconds(seconds: float | None) -> str:
    return UNKNOWN if seconds is None else f"{seconds:.2f} s"
