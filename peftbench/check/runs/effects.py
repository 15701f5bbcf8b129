"""What the raw figures of a comparison say: effects with intervals, each over pairs of blocks or rounds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import median
from typing import NamedTuple

from peftbench.base.paired import Interval, mean_difference, mean_of, median_ratio
from peftbench.inputs.comparison import LatencyCase, QualityCase, Variant
from peftbench.records.comparison import ComparisonRecord, LatencyResult, QualityResult
from peftbench.records.environment import SHORTEST_S


class QualityEffect(NamedTuple):
    """How one variant differs from its standard."""

    variant: str
    against: str
    perplexity: float
    ratio: Interval | None
    """Its perplexity by the standard's; None for the reference."""
    kl: Interval | None
    """In nats."""
    top1: Interval | None
    beyond_floor: bool | None
    """Whether its KL is larger than that of the 16-bit cast, with an interval that excludes none; None without one."""
    result: QualityResult


class LatencyRatio(NamedTuple):
    """How much longer one variant takes than another, round by round."""

    variant: str
    against: str
    prefill: Interval
    decode: Interval
    decode_cpu: Interval | None
    """By the CPU's time, which other processes on the machine hardly touch; None on a card."""


def quality_effects(record: ComparisonRecord) -> tuple[QualityEffect, ...]:
    """The effect of every variant that was measured, the reference first. The record is one of kind quality."""
    assert isinstance(record.case, QualityCase)
    found = {result.variant: result for result in record.results if isinstance(result, QualityResult)}
    variants = {variant.name: variant for variant in record.case.variants}
    floor = next((found[name] for name, variant in variants.items() if _is_floor(variant) and name in found), None)
    return tuple(
        _effect(result, found.get(variants[name].standard) if name in variants else None, floor)
        for name, result in found.items()
    )


def _is_floor(variant: Variant) -> bool:
    """Whether it is the cast to 16 bit, whose error every user accepts."""
    return variant.quantization is None and variant.adapter is None and variant.dtype.bytes == 2


def _effect(result: QualityResult, standard: QualityResult | None, floor: QualityResult | None) -> QualityEffect:
    perplexity = math.exp(sum(result.nll) / len(result.nll))
    if standard is None or not result.kl:
        return QualityEffect(result.variant, "", perplexity, None, None, None, None, result)
    ratio = Interval(*map(math.exp, mean_difference(result.nll, standard.nll)))
    beyond = None
    if floor and floor is not result and len(floor.kl) == len(result.kl):
        beyond = mean_difference(result.kl, floor.kl).low > 0
    return QualityEffect(
        result.variant, standard.variant, perplexity, ratio, mean_of(result.kl), mean_of(result.top1), beyond, result
    )


def latency_ratios(record: ComparisonRecord) -> tuple[LatencyRatio, ...]:
    """The pairs that people ask about: dynamic to merged, each to its base, other bases to the first one."""
    assert isinstance(record.case, LatencyCase)
    found = {result.variant: result for result in record.results if isinstance(result, LatencyResult)}
    measured = [variant for variant in record.case.variants if variant.name in found]
    return tuple(_ratio(found[variant], found[against]) for variant, against in _pairs(measured))


def _pairs(variants: Sequence[Variant]) -> Iterator[tuple[str, str]]:
    first = next((variant for variant in variants if variant.route == "base"), None)
    for variant in variants:
        same = [other for other in variants if other.base == variant.base]
        merged = next((other for other in same if other.route == "merged"), None)
        base = next((other for other in same if other.route == "base"), None)
        if variant.route == "dynamic" and merged:
            yield variant.name, merged.name
        if base and variant is not base:
            yield variant.name, base.name
        elif first and variant is base and variant is not first:
            yield variant.name, first.name


def _ratio(result: LatencyResult, other: LatencyResult) -> LatencyRatio:
    times = (*result.decode_cpu_s, *other.decode_cpu_s) if result.decode_cpu_s and other.decode_cpu_s else (0.0,)
    timed = min(times) >= SHORTEST_S
    return LatencyRatio(
        result.variant, other.variant, median_ratio(result.prefill_s, other.prefill_s),
        median_ratio(result.decode_s, other.decode_s),
        median_ratio(result.decode_cpu_s, other.decode_cpu_s) if timed else None,
    )  # fmt: skip


def tokens_per_s(result: LatencyResult, batch_size: int) -> float:
    """Generated in a second of the median round, over the batch."""
    return batch_size / median(result.decode_s)
