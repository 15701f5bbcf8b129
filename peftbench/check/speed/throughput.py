"""How good expected step times are: every published source predicted by constants fitted without it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache, partial
from statistics import median
from typing import Any, NamedTuple

from peftbench.check.groups import factor_of, grouped, nine_of_ten
from peftbench.check.speed.constants_fit import Observation, fit
from peftbench.check.speed.published_speed import SpeedRecord
from peftbench.estimate.time.constants import (
    HOPPER_ATTENTION_SHARE,
    PRIOR,
    TimeConstants,
    of_card,
    with_framework,
)
from peftbench.estimate.time.flops import step_work
from peftbench.estimate.time.step import step_time

IMPOSSIBLE = 0.9
"""Share of the data sheet's rate, recomputation included, beyond which a published row cannot be what it says."""
START = {
    "matmul_share": 0.8, "layer_launch_s": 1e-3, "adapter_launch_s": 0.05e-3, "shard_launch_s": 3e-3,
    "first_flash": 0.5, "first_flash_hopper": 0.3,
}  # fmt: skip
"""Where a fit begins, and what it keeps of constants that its rows do not decide: round numbers, from none of them.

The last two are `attention_share` of the first FlashAttention, which only published rows ran.
"""
WIDTH = 3.0
"""How far the beginnings are trusted, as a factor."""

GROUPS = ("method", "source", "model", "device", "generation", "framework")
"""What errors are grouped by."""
LEFT_OUT = ("source", "device", "generation", "framework")
"""Groups that can be left out of the fit one after the other, as a card or framework is that nobody timed."""

Constants = dict[str, float]


class SpeedRow(NamedTuple):
    """A published step beside the expected one."""

    record: SpeedRecord
    predicted_s: float
    low_s: float
    high_s: float

    @property
    def ratio(self) -> float:
        """Predicted by measured: above 1 is too slow."""
        return self.predicted_s / self.record.step_s

    @property
    def factor(self) -> float:
        """How far off, in either direction: 1 is exact."""
        return factor_of(self.ratio)


class SpeedAccuracy(NamedTuple):
    """The factors of a group of rows."""

    group: str
    rows: int
    median: float
    p90: float
    worst: float
    bias: float
    """Geometric mean of predicted by measured."""


def possible(records: Iterable[SpeedRecord]) -> tuple[SpeedRecord, ...]:
    """Without rows that would need more of the card than IMPOSSIBLE."""
    return tuple(record for record in records if reached_share(record) <= IMPOSSIBLE)


def reached_share(record: SpeedRecord) -> float:
    """Products and attention of the published step by what the data sheet's rate could have done in its time."""
    work, training = step_work(record.model, record.training), record.training
    flops = training.gradient_accumulation_steps * (work.matmul_flops + work.attention_flops)
    return flops / record.step_s / (record.gpu.tensor_flops or math.inf)


def predict(records: Iterable[SpeedRecord], constants: Constants | None = None) -> tuple[SpeedRow, ...]:
    """By the constants that `plan` uses, or by those given. Rows of cards that are not known are left out."""
    found = ((record, _expect(record, constants)) for record in records)
    return tuple(SpeedRow(record, *expected) for record, expected in found if expected)


def leave_one_out(records: Sequence[SpeedRecord], by: str = "source") -> tuple[SpeedRow, ...]:
    """Each source, or each group of LEFT_OUT, predicted by constants fitted to the others."""
    rows: list[SpeedRow] = []
    for group in dict.fromkeys(_group(record, by) for record in records):
        constants = fit_constants([record for record in records if _group(record, by) != group])
        rows += predict([record for record in records if _group(record, by) == group], constants)
    return tuple(rows)


def fit_constants(records: Sequence[SpeedRecord]) -> Constants:
    """The few constants of estimate/time/constants.py that all cards share, nearest to these rows."""
    known = [record for record in records if _expect(record, START)]
    seen = [Observation(_case(record), record.step_s, partial(_expected_s, record)) for record in known]
    found = fit(seen, START, dict.fromkeys(START, WIDTH))
    return {name: decided.value for name, decided in found.items()}


def accuracies(rows: Sequence[SpeedRow], by: str = "source") -> tuple[SpeedAccuracy, ...]:
    """By one of GROUPS, and over all rows."""
    groups = grouped(rows, lambda row: _group(row.record, by))
    return (*(_accuracy(name, found) for name, found in groups.items()), _accuracy("all", rows))


def _accuracy(group: str, rows: Sequence[SpeedRow]) -> SpeedAccuracy:
    factors = [row.factor for row in rows]
    bias = math.exp(sum(math.log(row.ratio) for row in rows) / len(rows))
    return SpeedAccuracy(group, len(rows), median(factors), nine_of_ten(factors), max(factors), bias)


def _group(record: SpeedRecord, by: str) -> str:
    return {
        "source": record.source, "method": record.training.method, "model": record.model.name,
        "device": record.gpu.name, "framework": record.framework,
        "generation": ".".join(map(str, record.gpu.compute_capability or ("other",))),  # "9.0" of an H100
    }[by]  # fmt: skip


def _case(record: SpeedRecord) -> str:
    """Rows of one model and method on one card repeat one error."""
    return f"{record.source} {record.gpu.name} {record.model.name} {record.training.method}"


def _expected_s(record: SpeedRecord, constants: Mapping[str, float]) -> float:
    found = _expect(record, dict(constants))
    assert found is not None
    return found[0]


def _expect(record: SpeedRecord, constants: Constants | None) -> tuple[float, float, float] | None:
    usual = _constants(record, tuple(constants.items())) if constants else None
    found = step_time(record.model, record.training, record.gpu, record.framework, usual)
    return (found.step_s, found.low_s, found.high_s) if found else None


@lru_cache(maxsize=4096)
def _constants(record: SpeedRecord, given: tuple[tuple[str, float], ...]) -> TimeConstants:
    own: dict[str, Any] = dict(given)
    first, hopper = own.pop("first_flash"), own.pop("first_flash_hopper")
    if record.first_flash:
        own["attention_share"] = first
    else:
        hopper = HOPPER_ATTENTION_SHARE
    return with_framework(of_card(PRIOR._replace(**own), hopper, record.gpu), record.framework)
