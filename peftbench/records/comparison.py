"""What a comparison of variants left: where it ran, how it ended, and the raw figures of every block or round.

Means, ratios and intervals are not in it: they are made from the raw figures by whoever reads the record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from peftbench.base.codec import Count, Seconds, Share, Within, from_json
from peftbench.base.errors import SpecError
from peftbench.base.visible import written
from peftbench.inputs.case import object_with
from peftbench.inputs.comparison import ComparisonCase, QualityCase, comparison_from_json, comparison_to_json
from peftbench.records.environment import Environment, Outcome, Took, read_versioned

SCHEMA_VERSION = 1
KINDS = ("quality", "latency")
Nats = Annotated[float, Within(0, 700)]
"""A loss or a divergence; exp of it, the perplexity, is within a float."""
Ratio = Annotated[float, Within(0, 1e30)]
"""Of errors, or an error of a logit."""


@dataclass(frozen=True, kw_only=True)
class LayerError:
    """How far the weights of one matrix are from those that it was quantized from."""

    name: str
    relative_rmse: Ratio
    """sqrt(mean((w' - w)²) / mean(w²))."""
    sqnr_db: Annotated[float, Within(-1e4, 1e4)]
    """10 log10(mean(w²) / mean((w' - w)²))."""


@dataclass(frozen=True, kw_only=True)
class QualityResult:
    """One variant against its standard."""

    variant: str
    nll: tuple[Nats, ...]
    """Mean negative log-likelihood of each block's tokens, in nats: exp of the mean is the perplexity."""
    kl: tuple[Nats, ...] = ()
    """Mean KL(standard || variant) of each block's tokens, in nats; none for the reference."""
    top1: tuple[Share, ...] = ()
    """Share of each block's tokens for which both rank the same token first."""
    logit_rmse: Ratio | None = None
    """Root mean squared error of the logits, relative to the spread of the standard's."""
    logit_max: Ratio | None = None
    """The largest difference of a logit."""
    share_16_bit: Share | None = None
    """Share of the parameters that were not quantized."""
    bits_per_parameter: Annotated[float, Within(0, 64)] | None = None
    """Bits of the quantized matrices, constants included."""
    layers: tuple[LayerError, ...] = ()
    kl_by_layer: tuple[tuple[str, Nats], ...] = ()
    """KL where only the weights of this decoder layer are quantized."""
    task_metrics: tuple[tuple[str, float, float | None], ...] = ()
    """Results of lm-evaluation-harness: "arc_easy acc", its value, and its standard error where it has one."""
    seconds: Seconds = 0.0
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_lengths(self.variant, len(self.nll), nll=self.nll)
        if self.kl or self.top1:
            _check_lengths(self.variant, len(self.nll), kl=self.kl, top1=self.top1)


@dataclass(frozen=True, kw_only=True)
class LatencyResult:
    """One variant over all rounds; figures of the same place in two variants are of the same round."""

    variant: str
    prefill_s: tuple[Took, ...]
    """Wall time to the first token."""
    decode_s: tuple[Took, ...]
    """Wall time of one token after that, the mean of a round's."""
    prefill_cpu_s: tuple[Seconds, ...] = ()
    """Time of the CPU in this process; none on a card."""
    decode_cpu_s: tuple[Seconds, ...] = ()
    max_logit_difference: Ratio | None = None
    """To the same base with its dynamic adapter; None for a base without one."""
    weights_bytes: Count | None = None
    """Bytes of all its tensors, those shared with other variants included."""
    peak_bytes: Count | None = None
    """Allocated beyond its weights in one prefill and decode."""
    load_s: Seconds | None = None
    merge_s: Seconds | None = None
    operations: tuple[tuple[str, tuple[Seconds, ...]], ...] = ()
    """Times of set_adapter, hotswap, load_adapter and of a mixed batch, in seconds."""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_lengths(self.variant, len(self.prefill_s), prefill_s=self.prefill_s, decode_s=self.decode_s)
        if self.prefill_cpu_s or self.decode_cpu_s:
            of_cpu = {"prefill_cpu_s": self.prefill_cpu_s, "decode_cpu_s": self.decode_cpu_s}
            _check_lengths(self.variant, len(self.prefill_s), **of_cpu)


def _check_lengths(variant: str, length: int, **lists: tuple[float, ...]) -> None:
    """Figures are compared pair by pair: raises SpecError for a list of another length, or of none."""
    for name, figures in lists.items():
        if not figures or len(figures) != length:
            raise SpecError(f"{name} of {written(variant)} must have {length or 'some'} values, not {len(figures)}.")


Result = QualityResult | LatencyResult


def _figures(result: Result) -> tuple[float, ...]:
    """One for each block, or round."""
    return result.nll if isinstance(result, QualityResult) else result.decode_s


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
    duration_s: Seconds = 0.0
    process_peak_bytes: Count | None = None

    def __post_init__(self) -> None:
        if len({result.variant for result in self.results}) < len(self.results):
            raise SpecError("results must not have a variant twice.")
        for result in self.results:
            _check_lengths(result.variant, len(_figures(self.results[0])), figures=_figures(result))

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
    given = object_with(("case", "results"), value, "record")
    given.pop("kind", None)
    given["case"] = comparison_from_json(given["case"])
    results = from_json(tuple[Mapping[str, Any], ...], given["results"], "results")
    given["results"] = tuple(result_from_json(given["case"], result) for result in results)
    record: ComparisonRecord = from_json(ComparisonRecord, given, "record")
    return record


def result_from_json(case: ComparisonCase, value: object) -> Result:
    """One result of this comparison from plain JSON values; raises SpecError for others."""
    kind = QualityResult if isinstance(case, QualityCase) else LatencyResult
    result: Result = from_json(kind, value, "result")
    return result
