"""Which variants are pairs: those whose ratio is asked for, and those whose ratio is 1 unless the measuring is biased.

A null pair does the same arithmetic on weights of the same shapes and types, so its true ratio is 1:

* the twin, the first variant run a second time in every round, is the very same model: order and clock could make a
  difference, and nothing else;
* a merged model and its base differ in where their weights lie in memory, and in whether one was prepared in another
  way, such as not frozen.

A 95 % interval leaves out the truth in 1 of 20 cases by its construction, and with several pairs in two phases one of
them soon would. So the intervals of these checks are wider: together they leave out 1 in no more than 1 of 100 runs in
which nothing is biased. They come from the order of the rounds' ratios, which makes that exact whatever their
distribution: the median lies below the smallest of n with probability 2^-n.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from statistics import median
from typing import NamedTuple

from peftbench.base.errors import MeasureError
from peftbench.base.paired import Interval, median_ratio
from peftbench.inputs.comparison import Variant
from peftbench.measure.latency.rounds import Timing, Timings

TWIN = "(twin)"
"""The first variant's second run. No variant can be named so."""
FALSE_ALARMS = 0.01
"""Share of the runs without bias that fail."""
MARGIN = 0.02
"""How far from 1 a null pair may be: where weights lie in memory makes a real difference of a percent or so."""

Phase = Callable[[Timing], float]


def prefill(timing: Timing) -> float:
    """Seconds: of the CPU where they are known, as other processes hardly touch those."""
    return timing.prefill_s if timing.prefill_cpu_s is None else timing.prefill_cpu_s


def decode(timing: Timing) -> float:
    """Seconds of a token, likewise."""
    return timing.decode_s if timing.decode_cpu_s is None else timing.decode_cpu_s


PHASES: Mapping[str, Phase] = {"prefill": prefill, "decode": decode}


def ratio(timings: Timings, name: str, other: str, phase: Phase) -> Interval:
    """How much longer the one takes than the other, over the rounds."""
    return median_ratio([phase(timing) for timing in timings[name]], [phase(timing) for timing in timings[other]])


def same_base(variants: Sequence[Variant], route: str, other: str) -> Iterator[tuple[Variant, Variant]]:
    """Pairs of variants that took these routes from the same weights, with the same adapter where both have one."""
    for one, two in product(variants, variants):
        alike = one.adapter is None or two.adapter is None or one.adapter == two.adapter
        if (one.route, two.route) == (route, other) and alike and one.base == two.base:
            yield one, two


def narrow_enough(variants: Sequence[Variant], interval: float) -> Callable[[Timings], bool]:
    """Whether each decode ratio of a dynamic variant, to the merged one or else the base, is known as well as asked."""
    pairs = list(same_base(variants, "dynamic", "merged")) or list(same_base(variants, "dynamic", "base"))

    return lambda timings: all(
        ratio(timings, one.name, two.name, decode).half_width <= interval for one, two in pairs
    )  # fmt: skip


class NullCheck(NamedTuple):
    """The ratio of a null pair, with bounds of its median that hold all but FALSE_ALARMS of the time."""

    name: str
    value: float
    low: float
    high: float

    @property
    def biased(self) -> bool:
        """Whether all of the interval is farther from 1 than MARGIN."""
        return self.low > 1 + MARGIN or self.high < 1 - MARGIN

    def __str__(self) -> str:
        return f"{self.name} {self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def null_checks(variants: Sequence[Variant], timings: Timings) -> list[NullCheck]:
    """The ratio of each null pair in each phase."""
    pairs = [(TWIN, variants[0].name), *((one.name, two.name) for one, two in same_base(variants, "merged", "base"))]
    tail = FALSE_ALARMS / (len(pairs) * len(PHASES)) / 2
    return [
        _null_check(f"{one} / {two} in {name}", [phase(a) / phase(b) for a, b in paired], tail)
        for one, two in pairs
        for name, phase in PHASES.items()
        for paired in [list(zip(timings[one], timings[two], strict=True))]
    ]


def refuse_bias(checks: Sequence[NullCheck]) -> None:
    """Raises MeasureError where the measuring itself prefers one of two equal things."""
    for check in checks:
        if check.biased:
            what = f"measuring is biased here: {check}, where the truth is 1."
            raise MeasureError(what, "Leave the machine to the measurement, or ask for more rounds.")


def _null_check(name: str, ratios: Sequence[float], tail: float) -> NullCheck:
    """Bounds from order statistics: the k-th smallest of n is above the median with probability P(B < k), B binomial
    of n and 1/2, and the bounds are the largest k for which that is within the tail. With too few ratios there is none,
    and the bounds are 0 and infinity."""
    ordered, n = [0.0, *sorted(ratios), math.inf], len(ratios)
    below, k = 1 / 2**n, 0
    while below <= tail:
        k += 1
        below += math.comb(n, k) / 2**n
    return NullCheck(name, median(ratios), ordered[k], ordered[-1 - k])
