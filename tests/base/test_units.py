"""Bytes to text and back: round trips, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftbench.base.errors import PeftbenchError, SpecError
from peftbench.base.units import GIB, KIB, MIB, gib, human_bytes, human_count, parse_bytes


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("14.5GiB", 14 * GIB + GIB // 2),
        ("14.5 gib", 14 * GIB + GIB // 2),
        (" 16 GB ", 16 * 10**9),
        ("15360MiB", 15360 * MIB),
        (".5KiB", 512),
        ("1 TB", 10**12),
        ("1tib", 1 << 40),
        ("1b", 1),
    ],
)
def test_sizes_with_a_unit_are_read(text, size_bytes):
    assert parse_bytes(text) == size_bytes


@pytest.mark.parametrize(
    "text",
    ["", "16", "GiB", "0GiB", "0.2B", "-1GiB", "1e3GiB", "16 G", "nanGiB", "1.GiB", "9999999TiB"],
)
def test_anything_else_is_refused_with_an_example(text):
    with pytest.raises(SpecError) as error:
        parse_bytes(text)
    assert repr(text) in error.value.what and "14.5GiB" in error.value.hint


@given(st.text())
def test_any_text_is_a_size_or_a_polite_refusal(text):
    try:
        assert parse_bytes(text) >= 1
    except PeftbenchError as error:
        assert error.hint


@given(st.integers(1, 1 << 50))
def test_written_sizes_are_read_back_to_half_a_hundredth_of_their_unit(size_bytes):
    text = human_bytes(size_bytes)
    unit = {"B": 1, "KiB": KIB, "MiB": MIB, "GiB": GIB}[text.split()[1]]
    assert abs(parse_bytes(text) - size_bytes) <= 0.005 * unit + 1


@given(st.integers(1, 1 << 20))
def test_whole_mebibytes_round_trip_exactly(mebibytes):
    assert parse_bytes(f"{mebibytes}MiB") == mebibytes * MIB


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 B"), (512, "512 B"), (1536 * KIB, "1.50 MiB"), (GIB, "1.00 GiB"), (-2 * GIB, "-2.00 GiB")],
)
def test_human_bytes_keeps_the_number_readable(size_bytes, text):
    assert human_bytes(size_bytes) == text


def test_gib_leaves_the_unit_to_the_heading():
    assert gib(14 * GIB + GIB // 2) == "14.50"


@pytest.mark.parametrize(
    ("number", "text"),
    [(8_030_261_248, "8.03 B"), (41_943_040, "41.9 M"), (131_072, "131,072"), (0, "0")],
)
def test_parameter_counts_are_written_as_people_say_them(number, text):
    assert human_count(number) == text


@pytest.mark.parametrize("size", [KIB, MIB, GIB])
def test_a_size_just_below_a_unit_is_not_1024_of_the_one_below(size):
    assert not human_bytes(size - 1).startswith("1024.00")
    assert human_bytes(size).startswith("1.00 ")


def test_sizes_are_rounded_to_the_unit_that_they_are_shown_in():
    assert human_bytes(GIB - 1) == "1.00 GiB" and human_bytes(-(GIB - 1)) == "-1.00 GiB"
    assert human_bytes(GIB - MIB // 100) == "1023.99 MiB" and human_bytes(KIB - 1) == "1023 B"
    assert human_count(999_999_999) == "1.00 B" and human_count(999_949_999) == "999.9 M"
