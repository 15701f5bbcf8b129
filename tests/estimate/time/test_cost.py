"""Hours, money and break-even: worked out by hand, and the ends of the bands."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftbench.base.errors import SpecError
from peftbench.estimate.time.cost import (
    Band,
    break_even_hours,
    cost_of,
    human_hours,
    human_usd,
    power_usd_per_hour,
)


def test_a_million_tokens_at_a_hundred_a_second() -> None:
    cost = cost_of(Band(3.6e6, 3.6e6, 3.6e6), Band(100, 50, 200), 2.0)
    assert cost.hours == (10, 5, 20)
    assert cost.usd == (20, 10, 40)


def test_setup_is_time_and_money() -> None:
    cost = cost_of(Band(3.6e6, 3.6e6, 3.6e6), Band(100, 50, 200), 2.0, setup_hours=0.5)
    assert cost.hours == (10.5, 5.5, 20.5)
    assert cost.usd == (21, 11, 41)


@pytest.mark.parametrize(
    ("hours", "text"),
    [(0.005, "18 s"), (0.02, "1.2 min"), (0.2, "12 min"), (3.44, "3.4 h"), (99, "99.0 h"), (240, "10.0 d")],
)
def test_how_long(hours: float, text: str) -> None:
    assert human_hours(hours) == text


@pytest.mark.parametrize(("usd", "text"), [(1234.5, "1,234.50"), (0.3, "0.30"), (0.0456, "0.046"), (0.001, "0.001")])
def test_how_much(usd: float, text: str) -> None:
    assert human_usd(usd) == text


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
