"""Published figures of what 4-bit weights cost in quality and what adapters and 4-bit cost in time, one row each.

published_quality.csv has a model in 4 bit beside the same model in 16 bit; published_latency.csv has times as they were
published, with what is known of the run. Figures only, each with its source; empty cells are not known.
"""

from __future__ import annotations

import csv
import math
import os.path
from functools import cache
from typing import NamedTuple

_FOLDER = os.path.dirname(__file__)
SIZE_CLASS = 1.5
"""Models of up to so many times the parameters, or as many times fewer, count as of one size."""
_PREFERRED = ("perplexity", "loss", "accuracy")


class QualityRow(NamedTuple):
    """A model in 4 bit beside itself in 16 bit, on one data set."""

    source: str
    model: str
    parameters: int
    dataset: str
    metric: str
    """ "perplexity", "loss" (nats a token), or "accuracy" (in percent)."""
    weights: str
    """ "nf4", "nf4-dq" with double quantization, or "bnb-4bit" where the source does not say which."""
    fine_tuned: bool
    """Whether both were fine-tuned before: QLoRA beside LoRA."""
    value: float
    baseline: float
    notes: str

    @property
    def perplexity_ratio(self) -> float | None:
        """How many times the perplexity of 16 bit; None for an accuracy."""
        if self.metric == "accuracy":
            return None
        return self.value / self.baseline if self.metric == "perplexity" else math.exp(self.value - self.baseline)


class LatencyRow(NamedTuple):
    """One published time of a model in one form."""

    source: str
    model: str
    gpu: str
    """A name of the catalogue, or what the source calls it."""
    phase: str
    """ "decode" (a token), "prefill", "forward" (a whole batch), or "task"."""
    weights: str
    """ "bf16", "fp16", "nf4", "nf4-dq", "bnb-4bit", "awq", "gptq"; empty where not stated."""
    route: str
    """ "base", "merged", "dynamic", "serial adapter" or "extra blocks"."""
    adapter: str
    prompt_tokens: int | None
    batch_size: int | None
    seconds: float
    baseline_s: float | None
    """The base model without adapter in the same table."""
    layers: int | None
    linears_per_layer: int | None
    """As that implementation runs them: query, key and value can be one."""
    weights_gb: float | None
    notes: str

    @property
    def publisher(self) -> str:
        """Rows of one publisher were taken on one machine, so they are one piece of evidence."""
        return self.source.split(" ")[0]

    @property
    def slowdown(self) -> float | None:
        """Times the base model's time in the same table."""
        return self.seconds / self.baseline_s if self.baseline_s else None


class DynamicRatio(NamedTuple):
    """How much longer a token takes with an unmerged adapter, over the rows of one source and model."""

    source: str
    model: str
    gpu: str
    adapter: str
    median: float
    """The upper one of two in the middle. (The statistics module would cost planning milliseconds.)"""
    low: float
    high: float


@cache
def quality_rows() -> tuple[QualityRow, ...]:
    """Every published quality, in the order of the file."""
    return tuple(
        QualityRow(
            row["source"], row["model"], int(row["parameters"]), row["dataset"], row["metric"], row["weights"],
            row["fine_tuned"] == "yes", float(row["value"]), float(row["baseline"]), row["notes"],
        )
        for row in _read("published_quality.csv")
    )  # fmt: skip


@cache
def latency_rows() -> tuple[LatencyRow, ...]:
    """Every published time, in the order of the file."""
    return tuple(
        LatencyRow(
            row["source"], row["model"], row["gpu"], row["phase"], row["weights"], row["route"], row["adapter"],
            _whole(row["prompt_tokens"]), _whole(row["batch_size"]),
            _seconds(row["value"], row["unit"]), _seconds(row["baseline"], row["unit"]) if row["baseline"] else None,
            _whole(row["layers"]), _whole(row["linears_per_layer"]),
            float(row["weights_gb"]) if row["weights_gb"] else None, row["notes"],
        )
        for row in _read("published_latency.csv")
    )  # fmt: skip


def quality_of(model: str, parameters: int, fine_tuned: bool) -> QualityRow | None:
    """The row nearest to a model in 4 bit: of that name first, else of its size class; None where there is none.

    Among rows equally near, those with the same history (`fine_tuned` or not), then perplexity before accuracy.
    """

    def far(row: QualityRow) -> tuple[bool, bool, float, int]:
        other = row.fine_tuned != fine_tuned
        return row.model != model, other, _distance(row.parameters, parameters), _PREFERRED.index(row.metric)

    near = [row for row in quality_rows() if row.model == model or _same_size(row.parameters, parameters)]
    return min(near, key=far, default=None)


def dynamic_ratio_of(adapter: str, parameters: int) -> DynamicRatio | None:
    """What an unmerged adapter of this type cost a model of the size class, a token; None where none was published."""
    rows = [
        row
        for row in latency_rows()
        if (row.route, row.adapter, row.phase) == ("dynamic", adapter, "decode")
        and _same_size(round((row.weights_gb or 0) * 1e9 / 2), parameters)
    ]
    ratios = sorted(row.slowdown for row in rows if row.slowdown)
    if not ratios:
        return None
    first = rows[0]
    return DynamicRatio(first.source, first.model, first.gpu, adapter, ratios[len(ratios) // 2], ratios[0], ratios[-1])


@cache
def cards_with_latency() -> frozenset[str]:
    """Names of the cards on which a time of a known run was published."""
    return frozenset(row.gpu for row in latency_rows() if row.layers)


def _same_size(parameters: int, others: int) -> bool:
    return _distance(parameters, others) <= math.log(SIZE_CLASS)


def _distance(parameters: int, others: int) -> float:
    return abs(math.log(parameters / others)) if parameters and others else math.inf


def _seconds(value: str, unit: str) -> float:
    """tokens/s becomes the seconds of a token; ms and ms/task become seconds."""
    return 1 / float(value) if unit == "tokens/s" else float(value) / 1000


def _whole(text: str) -> int | None:
    return int(text) if text else None


def _read(name: str) -> list[dict[str, str]]:
    with open(os.path.join(_FOLDER, name), encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
