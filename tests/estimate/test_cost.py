"""Hours, money and break-even: worked out by hand, and the ends of the bands."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftbench.errors import SpecError
from peftbench.estimate.cost import Band, break_even_hours, cost_of, power_usd_per_hour


def test_a_million_tokens_at_a_hundred_a_second() -> None:
    cost = cost_of(Band(3.6e6, 3.6e6, 3.6e6), Band(100, 50, 200), 2.0)
    assert cost.hours == (10, 5, 20)
    assert cost.usd == (20, 10, 40)


def test_the_fewest_tokens_go_at_the_highest_rate() -> None:
    cost = cost_of(Band(3600, 1800, 7200), Band(1, 0.5, 2), 1.0)
    assert cost.hours == (1, 0.25, 4)


@pytest.mark.parametrize(("tokens", "rate"), [(0, 1), (1, 0)])
def test_nothing_has_no_cost(tokens: float, rate: float) -> None:
    with pytest.raises(SpecError):
        cost_of(Band(*3 * (tokens,)), Band(*3 * (rate,)), 1.0)


def test_break_even() -> None:
    """1,500 dollars against 0.30 rent less 0.05 of power an hour."""
    assert break_even_hours(1500, 0.30, power_usd_per_hour(500, 0.10)) == pytest.approx(6000)
    assert break_even_hours(1500, 0.05, 0.05) is None


@given(st.floats(1, 1e5), st.floats(0.01, 10), st.floats(0.001, 10))
def test_at_break_even_both_cost_the_same(bought: float, rent: float, power: float) -> None:
    hours = break_even_hours(bought, rent, power)
    if hours is not None:
        assert bought + hours * power == pytest.approx(hours * rent)
