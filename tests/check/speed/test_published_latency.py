"""Expected beside published times, and the constants of the formula beside the rows that they come from."""

from __future__ import annotations

import pytest

from peftbench.catalog.published_effects import latency_rows
from peftbench.check.speed.published_latency import host_costs, leave_one_out, median_factor, price_rows
from peftbench.estimate.time.constants import HOST_COSTS
from peftbench.estimate.time.latency import BAND

PRICED = [row for row in price_rows() if row.factor]


@pytest.mark.parametrize("name", HOST_COSTS._fields)
def test_a_cost_of_the_host_is_what_the_rows_say(name: str) -> None:
    assert getattr(HOST_COSTS, name) == pytest.approx(getattr(host_costs(latency_rows()), name), rel=0.02)


def test_rows_without_a_price_say_why() -> None:
    assert all(bool(row.why_not) == (row.expected_s is None) for row in price_rows())


def test_half_of_the_published_times_are_within_a_tenth() -> None:
    assert len(PRICED) >= 25
    assert median_factor(PRICED) <= 1.1


def test_nine_in_ten_published_times_are_in_the_band() -> None:
    inside = [row for row in PRICED if row.factor and row.factor <= BAND]
    assert len(inside) >= 0.9 * len(PRICED)


def test_other_publishers_foretell_a_publisher() -> None:
    """No row was used for its own price here; double quantization and adapters have one publisher each."""
    rows = leave_one_out()
    assert {row.row.publisher for row in rows} == {
        "Lightning-AI/litgpt", "modelscope/ms-swift", "huggingface/blog",
    }  # fmt: skip
    assert not [row for row in rows if row.row.weights == "nf4-dq" or row.row.route == "dynamic"]
    assert median_factor(rows) <= 1.25
    assert max(row.factor for row in rows if row.factor) <= 2


def test_costs_without_rows_are_nothing() -> None:
    assert host_costs([]) == (0, 0, 0, 0)
