"""Intervals of paired measurements: they hold the truth as often as they say, and use what pairs have in common."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftbench.base.paired import mean_difference, mean_of, median_ratio

NUMBERS = st.lists(st.floats(0.1, 100), min_size=2, max_size=12)


@given(values=NUMBERS)
def test_an_interval_holds_its_value_and_is_the_same_again(values):
    interval = mean_of(values)
    assert interval.low <= interval.value * (1 + 1e-9) and interval.value <= interval.high * (1 + 1e-9)
    assert mean_of(values) == interval


@given(values=NUMBERS, factor=st.floats(0.5, 2))
def test_the_ratio_to_a_multiple_is_the_factor(values, factor):
    ratio = median_ratio([factor * value for value in values], values)
    assert all(math.isclose(bound, factor, rel_tol=1e-9) for bound in ratio)


def test_pairs_take_out_what_they_have_in_common():
    draw = random.Random(3)
    hard = [draw.gauss(3, 1) for _ in range(24)]
    other = [block + 0.02 + draw.gauss(0, 0.005) for block in hard]
    paired = mean_difference(other, hard)
    assert paired.excludes(0) and not paired.excludes(0.02)
    alone = mean_of(other)
    assert alone.high - alone.low > 20 * (paired.high - paired.low)


def test_19_of_20_intervals_hold_the_truth():
    """Within what 200 draws of a binomial may be off by, and what a bootstrap of 20 pairs is short of."""
    draw = random.Random(5)
    held = 0
    for _ in range(200):
        moments = [draw.uniform(1, 3) for _ in range(20)]
        slower = [1.2 * moment * draw.lognormvariate(0, 0.05) for moment in moments]
        held += not median_ratio(slower, moments).excludes(1.2)
    assert 0.88 <= held / 200 <= 0.99


def test_what_is_not_paired_is_refused():
    with pytest.raises(ValueError):
        mean_difference([1.0, 2.0], [1.0])
    with pytest.raises(ValueError):
        mean_of([])
