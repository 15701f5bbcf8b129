"""Comparisons as flat rows, one a variant and standard, for CSV and JSON: units in the column names, a fixed order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from statistics import median

from peftbench.base.paired import Interval
from peftbench.check.runs.effects import latency_ratios, quality_effects, tokens_per_s
from peftbench.inputs.comparison import LatencyCase, Variant
from peftbench.records.comparison import ComparisonRecord, LatencyResult

_INTERVALS = (
    "perplexity_ratio", "kl_nats", "top1_share", "decode_ratio", "decode_cpu_ratio", "prefill_ratio",
)  # fmt: skip
COLUMNS = (
    "kind", "suite", "key", "model", "variant", "against", "weights", "blocksize", "double_quant", "dtype",
    "compute_dtype", "adapter", "r", "adapters", "round_trips", "outcome", "message", "perplexity",
    *(f"{name}{end}" for name in _INTERVALS for end in ("", "_low", "_high")), "beyond_16_bit", "logit_rmse",
    "logit_max", "share_16_bit", "bits_per_parameter", "prefill_median_s", "decode_median_s", "tokens_per_s", "rounds",
    "weights_bytes", "peak_bytes", "load_s", "merge_s", "max_logit_difference", "device", "product", "driver",
    "threads", "torch_version", "transformers_version", "peft_version", "bitsandbytes_version", "started_at",
)  # fmt: skip
"""Frozen: new columns come at the end."""


def comparison_rows(records: Iterable[ComparisonRecord]) -> list[dict[str, object]]:
    """Every column of every row; unknown is None. A comparison that left nothing has one row with its outcome."""
    return [{**dict.fromkeys(COLUMNS), **row} for record in records for row in _rows(record)]


def _rows(record: ComparisonRecord) -> Iterator[dict[str, object]]:
    place, case = record.environment, record.case
    shared: dict[str, object] = {
        "kind": case.task, "suite": record.suite, "key": case.key, "model": case.model, "outcome": record.outcome.value,
        "message": record.message, "device": place.device, "product": place.product, "driver": place.driver,
        "threads": place.threads, "started_at": place.started_at,
        **{f"{name}_version": place.versions.get(name) for name in ("torch", "transformers", "peft", "bitsandbytes")},
    }  # fmt: skip
    variants = {variant.name: _described(variant) for variant in case.variants}
    found = list(_latency_rows(record) if isinstance(case, LatencyCase) else _quality_rows(record))
    for row in found or [{}]:
        yield {**shared, **variants.get(str(row.get("variant")), {}), **row}


def _described(variant: Variant) -> dict[str, object]:
    stored, adapter = variant.quantization, variant.adapter
    return {
        "weights": stored.quant_type if stored else variant.dtype.value, "dtype": variant.dtype.value,
        "blocksize": stored.blocksize if stored else None,
        "double_quant": stored.double_quant if stored and "double_quant" in stored.scheme.options else None,
        "compute_dtype": stored.compute_dtype.value if stored else None, "adapter": variant.route,
        "r": adapter.r if adapter else None, "adapters": variant.adapters, "round_trips": variant.round_trips,
    }  # fmt: skip


def _quality_rows(record: ComparisonRecord) -> Iterator[dict[str, object]]:
    for effect in quality_effects(record):
        result = effect.result
        yield {
            "variant": effect.variant, "against": effect.against or None, "perplexity": effect.perplexity,
            **_bounds("perplexity_ratio", effect.ratio), **_bounds("kl_nats", effect.kl),
            **_bounds("top1_share", effect.top1), "beyond_16_bit": effect.beyond_floor,
            "logit_rmse": result.logit_rmse, "logit_max": result.logit_max, "share_16_bit": result.share_16_bit,
            "bits_per_parameter": result.bits_per_parameter,
        }  # fmt: skip


def _latency_rows(record: ComparisonRecord) -> Iterator[dict[str, object]]:
    """A variant alone, and once more for each that it is set against."""
    assert isinstance(record.case, LatencyCase)
    ratios = latency_ratios(record)
    for result in record.results:
        if not isinstance(result, LatencyResult):
            continue
        alone = {
            "variant": result.variant, "prefill_median_s": median(result.prefill_s), "rounds": len(result.decode_s),
            "decode_median_s": median(result.decode_s), "tokens_per_s": tokens_per_s(result, record.case.batch_size),
            "weights_bytes": result.weights_bytes, "peak_bytes": result.peak_bytes, "load_s": result.load_s,
            "merge_s": result.merge_s, "max_logit_difference": result.max_logit_difference,
        }  # fmt: skip
        yield alone
        for ratio in ratios:
            if ratio.variant == result.variant:
                yield {
                    **alone, "against": ratio.against, **_bounds("decode_ratio", ratio.decode),
                    **_bounds("decode_cpu_ratio", ratio.decode_cpu), **_bounds("prefill_ratio", ratio.prefill),
                }  # fmt: skip


def _bounds(name: str, interval: Interval | None) -> dict[str, object]:
    if interval is None:
        return {}
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
