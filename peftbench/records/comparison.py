"""What a comparison of variants left: where it ran, how it ended, and the raw figures of every block or round.

Means, ratios and intervals are not in it: they are made from the raw figures by whoever reads the record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from peftbench.base.codec import from_json
from peftbench.inputs.comparison import ComparisonCase, QualityCase, comparison_from_json, comparison_to_json
from peftbench.records.environment import Environment, Outcome, read_versioned

SCHEMA_VERSION = 1
KINDS = ("quality", "latency")


@dataclass(frozen=True, kw_only=True)
class LayerError:
    """How far the weights of one matrix are from those that it was quantized from."""

    name: str
    relative_rmse: float
    """sqrt(mean((w' - w)²) / mean(w²))."""
    sqnr_db: float
    """10 log10(mean(w²) / mean((w' - w)²))."""


@dataclass(frozen=True, kw_only=True)
class QualityResult:
    """One variant against its standard."""

    variant: str
    nll: tuple[float, ...]
    """Mean negative log-likelihood of each block's tokens, in nats: exp of the mean is the perplexity."""
    kl: tuple[float, ...] = ()
    """Mean KL(standard || variant) of each block's tokens, in nats; none for the reference."""
    top1: tuple[float, ...] = ()
    """Share of each block's tokens for which both rank the same token first."""
    logit_rmse: float | None = None
    """Root mean squared error of the logits, relative to the spread of the standard's."""
    logit_max: float | None = None
    """The largest difference of a logit."""
    share_16_bit: float | None = None
    """Share of the parameters that were not quantized."""
    bits_per_parameter: float | None = None
    """Bits of the quantized matrices, constants included."""
    layers: tuple[LayerError, ...] = ()
    kl_by_layer: tuple[tuple[str, float], ...] = ()
    """KL where only the weights of this decoder layer are quantized."""
    task_metrics: tuple[tuple[str, float, float | None], ...] = ()
    """Results of lm-evaluation-harness: "arc_easy acc", its value, and its standard error where it has one."""
    seconds: float = 0.0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LatencyResult:
    """One variant over all rounds; figures of the same place in two variants are of the same round."""

    variant: str
    prefill_s: tuple[float, ...]
    """Wall time to the first token."""
    decode_s: tuple[float, ...]
    """Wall time of one token after that, the mean of a round's."""
    prefill_cpu_s: tuple[float, ...] = ()
    """Time of the CPU in this process; none on a card."""
    decode_cpu_s: tuple[float, ...] = ()
    max_logit_difference: float | None = None
    """To the same base with its dynamic adapter; None for a base without one."""
    weights_bytes: int | None = None
    """Bytes of all its tensors, those shared with other variants included."""
    peak_bytes: int | None = None
    """Allocated beyond its weights in one prefill and decode."""
    load_s: float | None = None
    merge_s: float | None = None
    operations: tuple[tuple[str, tuple[float, ...]], ...] = ()
    """Times of set_adapter, hotswap, load_adapter and of a mixed batch, in seconds."""
    notes: tuple[str, ...] = ()


Result = QualityResult | LatencyResult


@dataclass(frozen=True, kw_only=True)
class ComparisonRecord:
    """One line of results/<device>/<suite>.jsonl."""

    suite: str
    case: ComparisonCase
    environment: Environment
    outcome: Outcome
    message: str = ""
    results: tuple[Result, ...] = ()
    """Results of the variants that were done when it ended."""
    facts: Mapping[str, Any]
    """What the text and the model were: tokens, parameters, sources, caveats."""
    duration_s: float = 0.0
    process_peak_bytes: int | None = None

    def result(self, variant: str) -> Result | None:
        """The result of a variant by name; None where it was not reached."""
        return next((each for each in self.results if each.variant == variant), None)


def comparison_record_to_json(record: ComparisonRecord) -> dict[str, Any]:
    """The object that a line holds."""
    plain = {name: value for name, value in asdict(record).items() if name not in ("case", "results")}
    results = [asdict(result) for result in record.results]
    case = comparison_to_json(record.case)
    return {"schema_version": SCHEMA_VERSION, "kind": record.case.task, **plain, "case": case, "results": results}


def comparison_record_from_json(value: object) -> ComparisonRecord:
    """The inverse; raises CatalogError that says what is wrong."""
    return read_versioned(value, SCHEMA_VERSION, "a record of a comparison", _record)


def _record(value: Mapping[str, Any]) -> ComparisonRecord:
    given = {name: field for name, field in value.items() if name != "kind"}
    given["case"] = comparison_from_json(given["case"])
    given["results"] = tuple(result_from_json(given["case"], result) for result in given["results"])
    record: ComparisonRecord = from_json(ComparisonRecord, given, "record")
    return record


def result_from_json(case: ComparisonCase, value: object) -> Result:
    """One result of this comparison from plain JSON values; raises SpecError for others."""
    kind = QualityResult if isinstance(case, QualityCase) else LatencyResult
    result: Result = from_json(kind, value, "result")
    return result
