"""Statistics of paired measurements: what differs between two things that were measured under the same conditions.

Differences are taken within each pair, so what the pairs have in common (a hard block of text, a busy moment of the
machine) does not widen the interval.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from functools import lru_cache
from statistics import fmean, median
from typing import NamedTuple

RESAMPLES = 2000
LEVEL = 0.95


class Interval(NamedTuple):
    """A figure and the bounds of its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half of the interval, relative to the value."""
        return (self.high - self.low) / 2 / abs(self.value) if self.value else math.inf

    def excludes(self, value: float) -> bool:
        """Whether the value is outside."""
        return not self.low <= value <= self.high


def mean_of(values: Sequence[float], seed: int = 0) -> Interval:
    """The mean with its interval."""
    return _bootstrap(tuple(values), fmean, seed)


def mean_difference(values: Sequence[float], others: Sequence[float], seed: int = 0) -> Interval:
    """The mean of values - others, pair by pair. Raises ValueError where they are no pairs."""
    return mean_of([a - b for a, b in zip(values, others, strict=True)], seed)


def median_ratio(values: Sequence[float], others: Sequence[float], seed: int = 0) -> Interval:
    """exp of the median of log(value / other), pair by pair; all are positive. Raises ValueError else."""
    logs = tuple(math.log(a / b) for a, b in zip(values, others, strict=True))
    return Interval(*map(math.exp, _bootstrap(logs, median, seed)))


@lru_cache(maxsize=4096)  # a table and a chart of a report ask for the same
def _bootstrap(values: tuple[float, ...], statistic: Callable[[Sequence[float]], float], seed: int) -> Interval:
    """Percentiles of the statistic over resamples; the same for the same values and seed."""
    if not values:
        raise ValueError("there is nothing to take a statistic of")
    draw = random.Random(seed)
    found = sorted(statistic(draw.choices(values, k=len(values))) for _ in range(RESAMPLES))
    tail = (1 - LEVEL) / 2
    return Interval(statistic(values), found[int(tail * RESAMPLES)], found[math.ceil((1 - tail) * RESAMPLES) - 1])
