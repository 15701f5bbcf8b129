"""Published times beside what the formula expects of the same runs, and the costs of the host derived from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from statistics import geometric_mean, median
from typing import NamedTuple

from peftbench.catalog.gpus import find_gpu
from peftbench.catalog.published_effects import LatencyRow, latency_rows
from peftbench.check.groups import factor_of, grouped
from peftbench.estimate.time.constants import HOST_COSTS, HostCosts
from peftbench.estimate.time.latency import Work, pass_time

SIXTEEN_BIT = ("bf16", "fp16")
FOUR_BIT = ("nf4", "nf4-dq", "bnb-4bit")
BYTES_IN_4_BIT = 0.5 + 4 / 64
"""A weight's code, and a float32 for each block of 64."""
TENSORS = {"lora": 2, "adalora": 3}
"""Matrices of a dynamic adapter on one linear layer."""


class PricedRow(NamedTuple):
    """A published time and the expected one."""

    row: LatencyRow
    expected_s: float | None
    """None where the run or its kernel is not known well enough."""
    why_not: str
    """What is missing; empty when it was priced."""

    @property
    def ratio(self) -> float | None:
        """Expected by published."""
        return self.expected_s / self.row.seconds if self.expected_s else None

    @property
    def factor(self) -> float | None:
        """How far off, in either direction: 1 is exact."""
        return factor_of(self.ratio) if self.ratio else None


def price_rows(costs: HostCosts = HOST_COSTS) -> tuple[PricedRow, ...]:
    """Every published time, in the order of the file."""
    return tuple(price(row, costs) for row in latency_rows())


def price(row: LatencyRow, costs: HostCosts = HOST_COSTS) -> PricedRow:
    """Expect the time of one published run, from its layers, its weights and the card's data sheet."""
    if why_not := _missing(row):
        return PricedRow(row, None, why_not)
    gpu = find_gpu(row.gpu)
    assert gpu.memory_bandwidth and gpu.tensor_flops
    return PricedRow(row, pass_time(_work(row), gpu.memory_bandwidth, gpu.tensor_flops, costs).seconds, "")


def median_factor(rows: Iterable[PricedRow]) -> float:
    """Half of the rows that could be priced are closer than this."""
    return median(row.factor for row in rows if row.factor)


def leave_one_out() -> tuple[PricedRow, ...]:
    """Rows priced with costs that are derived from the other publishers' rows, where those decide all of them."""
    rows = latency_rows()
    found = []
    for publisher in dict.fromkeys(row.publisher for row in rows):
        costs = host_costs([row for row in rows if row.publisher != publisher])
        own = [row for row in rows if row.publisher == publisher]
        found += [price(row, costs) for row in own if _needs(row, costs)]
    return tuple(row for row in found if row.expected_s)


def _needs(row: LatencyRow, costs: HostCosts) -> bool:
    """Whether costs derived elsewhere reach for the row: a cost that nobody else published is 0."""
    adapter, absmax = row.route == "dynamic", row.weights == "nf4-dq"
    return not (adapter and not costs.adapter_tensor_s) and not (absmax and not costs.separate_absmax_s)


def _missing(row: LatencyRow) -> str:
    if row.layers is None or row.linears_per_layer is None:
        return "card, precision or lengths are not stated"
    if row.weights not in (*SIXTEEN_BIT, *FOUR_BIT):
        return f"kernels of {row.weights} have no formula"
    if row.route == "dynamic" and row.adapter not in TENSORS:
        return f"{row.adapter} has no formula"
    if row.route not in ("base", "dynamic"):
        return f"{row.route} have no formula"
    return ""


def _work(row: LatencyRow) -> Work:
    """One token, or a prompt so short that reading the weights outlasts the arithmetic."""
    quantized = _linears(row) if row.weights in FOUR_BIT else 0
    held = round((row.weights_gb or 0) * 1e9)
    written_out = round(held / BYTES_IN_4_BIT) if quantized and row.phase == "prefill" else 0
    return Work(
        layers=row.layers or 0,
        weight_bytes=2 * written_out or held,
        dequantized_weights=written_out,
        quantized_linears=quantized,
        separate_absmax=row.weights == "nf4-dq",
        adapter_tensors=_linears(row) * TENSORS[row.adapter] if row.route == "dynamic" else 0,
    )


def _linears(row: LatencyRow) -> int:
    return (row.layers or 0) * (row.linears_per_layer or 0)


# ── where the constants of estimate/time/latency.py come from ────────────────────────────────────────────────


def host_costs(rows: Sequence[LatencyRow]) -> HostCosts:
    """Derive the costs from published times: medians by publisher, then the geometric mean; 0 where there are no rows.

    Each is a difference within one table: 4 bit less 16 bit, double quantization less none, dynamic less base. Larger
    models, which do not fit the card in 16 bit, tell of double quantization only.
    """
    known = [row for row in rows if not _missing(row)]
    return HostCosts(
        _cost(known, is_plain, lambda row: row.seconds / (row.layers or 1)),
        _cost(known, lambda row: row.weights in ("nf4", "bnb-4bit"), lambda row: _beyond(row, known, SIXTEEN_BIT)),
        _cost(known, lambda row: row.weights == "nf4-dq", lambda row: _beyond(row, known, ("nf4",))),
        _cost(known, lambda row: row.route == "dynamic" and row.adapter == "lora", _per_tensor),
    )


def _cost(
    rows: Sequence[LatencyRow], chosen: Callable[[LatencyRow], bool], cost: Callable[[LatencyRow], float | None]
) -> float:
    groups = grouped(filter(chosen, rows), lambda row: row.publisher).values()
    known = [[seconds for seconds in map(cost, group) if seconds is not None] for group in groups]
    return geometric_mean(map(median, filter(None, known))) if any(known) else 0.0


def is_plain(row: LatencyRow) -> bool:
    """Whether the run is of a 16-bit model without adapter."""
    return row.weights in SIXTEEN_BIT and row.route == "base"


def _beyond(row: LatencyRow, rows: Sequence[LatencyRow], weights: tuple[str, ...]) -> float | None:
    """Seconds a linear layer takes beyond the same model with other weights; None where that was not published."""
    same = [r for r in rows if (r.publisher, r.model, r.route) == (row.publisher, row.model, "base")]
    other = next((r for r in same if r.weights in weights), None)
    return (row.seconds - other.seconds) / _linears(row) if other else None


def _per_tensor(row: LatencyRow) -> float | None:
    if row.baseline_s is None:
        return None
    return (row.seconds - row.baseline_s) / (_linears(row) * TENSORS[row.adapter])
