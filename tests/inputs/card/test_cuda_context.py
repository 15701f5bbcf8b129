"""The CUDA context: its size against the published figures it is derived from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftbench.base.errors import SpecError
from peftbench.base.units import MIB
from peftbench.inputs.card.cuda_context import context_band, context_bytes


@pytest.mark.parametrize(
    ("multiprocessors", "published_mib"),
    [(188, 555), (34, 107)],  # RTX PRO 6000 and RTX 4060 Ti: ggml-org/llama.cpp#23604
)
def test_the_low_end_is_the_published_bare_context(multiprocessors, published_mib):
    assert context_band(multiprocessors)[0] == pytest.approx(published_mib * MIB, rel=0.05)


def test_small_cards_are_ruled_by_what_pytorch_loads():
    assert context_bytes(40) == 300 * 10**6
    assert context_bytes(132) == 396 * MIB


def test_the_high_end_for_an_a100_is_the_least_that_its_runs_left_beside_torch():
    assert context_band(108)[1] == 957 * MIB


@given(st.none() | st.integers(0, 1000))
def test_the_expected_size_lies_in_the_band(multiprocessors):
    low, high = context_band(multiprocessors)
    assert low <= context_bytes(multiprocessors) <= high


@given(st.integers(34, 188))
def test_an_unknown_card_has_the_widest_band(multiprocessors):
    low, high = context_band(multiprocessors)
    assert context_band(None)[0] <= low and high <= context_band(None)[1]


def test_a_negative_number_is_refused():
    with pytest.raises(SpecError):
        context_bytes(-1)
