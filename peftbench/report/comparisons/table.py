"""Comparisons of variants as tables: quality with its intervals, latency with its ratios."""

from __future__ import annotations

import math
from functools import partial
from statistics import median

from peftbench.base.paired import Interval
from peftbench.base.units import human_bytes
from peftbench.base.visible import one_line
from peftbench.check.runs.effects import QualityEffect, latency_ratios, quality_effects, tokens_per_s
from peftbench.decide.suite.predict_case import predict_variant
from peftbench.inputs.comparison import ComparisonCase, LatencyCase, Variant
from peftbench.records.comparison import ComparisonRecord, LatencyResult
from peftbench.report.format.sheet import UNKNOWN, Column, Table, tabled

WORST_LAYERS = 5
MOST_DIGITS = 5
EIGHT_BITS = 7.0
"""More bits than this are not a 4-bit type, constants included."""


def variants_table(case: ComparisonCase) -> Table:
    """What is going to be compared."""
    columns = (
        Column("case", lambda variant: variant.name), Column("weights", _weights),
        Column("adapter", lambda variant: variant.route),
        Column("predicted alone", partial(predict_variant, case), human_bytes, "r"),
    )  # fmt: skip
    return tabled(columns, case.variants)


def comparison_tables(record: ComparisonRecord) -> list[Table]:
    """Those of one record; none where nothing was measured."""
    if not record.results:
        return []
    if isinstance(record.case, LatencyCase):
        return _latency_tables(record, record.case.batch_size)
    quality = tabled(QUALITY, quality_effects(record), comparison_title(record))
    return [quality, *_worst_layers(record)]


def comparison_title(record: ComparisonRecord) -> str:
    """ "quality-smoke: small-llama on AMD EPYC · 1 thread · torch 2.13.0 · 2026-11-25"."""
    place = record.environment
    where = f"driver {place.driver}" if place.driver else f"{place.threads} thread{'s' * (place.threads > 1)}"
    parts = (where, f"torch {place.versions.get('torch', '?')}", place.started_at[:10])
    own = record.case.model.startswith(f"{record.suite}'s")  # a config that is written out in the suite has no name
    model = "" if own else f": {record.case.model}"
    return one_line(f"{record.suite}{model} on {place.product} · {' · '.join(parts)}")


# ── quality ─────────────────────────────────────────────────────────────────────────────────────────────────────────


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


QUALITY = (
    Column("case", lambda effect: one_line(effect.variant)),
    Column("against", lambda effect: one_line(effect.against) or UNKNOWN),
    Column("ppl", lambda effect: effect.perplexity, "{:.2f}".format, "r"),
    Column("ratio", lambda effect: effect.ratio, interval_text, "r"),
    Column("KL, nats", lambda effect: effect.kl, interval_text, "r"),
    Column("top-1", lambda effect: effect.top1 and effect.top1.value, "{:.1%}".format, "r"),
    Column(">16 bit", lambda effect: effect.beyond_floor, lambda beyond: "yes" if beyond else "no", "r"),
)
LAYERS = (
    Column("matrix", lambda layer: one_line(layer.name)),
    Column("relative RMSE", lambda layer: layer.relative_rmse, "{:.4f}".format, "r"),
    Column("SQNR, dB", lambda layer: layer.sqnr_db, "{:.2f}".format, "r"),
)


def _worst_layers(record: ComparisonRecord) -> list[Table]:
    """The matrices that lose most, of the first variant that is quantized."""
    effect = quantized_effect(record)
    if effect is None:
        return []
    worst = sorted(effect.result.layers, key=lambda layer: -layer.relative_rmse)[:WORST_LAYERS]
    return [tabled(LAYERS, worst, f"matrices that {one_line(effect.variant)} changes most")]


# ── latency ─────────────────────────────────────────────────────────────────────────────────────────────────────────

_milliseconds, _seconds = (lambda seconds: f"{1000 * seconds:.2f} ms"), "{:.2f} s".format
VARIANT = Column("case", lambda result: one_line(result.variant))
RATIOS = (
    VARIANT, Column("to", lambda ratio: one_line(ratio.against)),
    Column("a token", lambda ratio: ratio.decode, interval_text, "r"),
    Column("by CPU time", lambda ratio: ratio.decode_cpu, interval_text, "r"),
    Column("prefill", lambda ratio: ratio.prefill, interval_text, "r"),
)  # fmt: skip
OPERATIONS = (
    Column("case", lambda each: one_line(each[0])), Column("operation", lambda each: one_line(each[1])),
    Column("median", lambda each: median(each[2]), _milliseconds, "r"),
    Column("times", lambda each: len(each[2]), side="r"),
)  # fmt: skip


def _latency_tables(record: ComparisonRecord, batch_size: int) -> list[Table]:
    """Medians over all rounds, the variants against each other, and set_adapter, hotswap and the like."""
    latency = (
        VARIANT, Column("prefill", lambda result: median(result.prefill_s), _milliseconds, "r"),
        Column("a token", lambda result: median(result.decode_s), _milliseconds, "r"),
        Column("tokens/s", lambda result: tokens_per_s(result, batch_size), "{:.1f}".format, "r"),
        Column("weights", lambda result: result.weights_bytes, human_bytes, "r"),
        Column("+peak", lambda result: result.peak_bytes, human_bytes, "r"),
        Column("load", lambda result: result.load_s, _seconds, "r"),
        Column("merge", lambda result: result.merge_s, _seconds, "r"),
        Column("|Δlogit|", lambda result: result.max_logit_difference, "{:.2g}".format, "r"),
    )  # fmt: skip
    results = [result for result in record.results if isinstance(result, LatencyResult)]
    title = f"times as long, median of {len(results[0].decode_s)} rounds ± half of the 95 % interval"
    operations = [(each.variant, *operation) for each in results for operation in each.operations if operation[1]]
    tables = (
        tabled(latency, results, comparison_title(record)), tabled(RATIOS, latency_ratios(record), title),
        tabled(OPERATIONS, operations, "operations on adapters"),
    )  # fmt: skip
    return [table for table in tables if table.rows]


def _weights(variant: Variant) -> str:
    stored = variant.quantization
    if stored is None:
        return str(variant.dtype)
    block = f"/{stored.blocksize}" if stored.blocksize else ""
    double = " DQ" if stored.double_quant and "double_quant" in stored.scheme.options else ""
    return f"{stored.quant_type}{block}{double}, {variant.dtype}"
