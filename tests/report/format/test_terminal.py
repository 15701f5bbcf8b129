"""Text for the terminal: widths, bars, colour that only repeats words, and streams without UTF-8."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftbench.report.format.sheet import Table
from peftbench.report.format.terminal import bar, render, terminal_width, wants_colour, wrap


def test_columns_are_aligned_and_unwrapped_when_there_is_room() -> None:
    table = Table("", ("GiB", "peak", ""), [("qlora", "9.77", "fits"), ("full", "62.82", "does not fit")], "lrl")
    assert render(table) == "  GiB     peak\n  qlora   9.77  fits\n  full   62.82  does not fit"


def test_a_long_cell_is_wrapped_under_itself() -> None:
    table = Table("", ("", ""), [("because of", "weights and many other words")], "ll")
    assert render(table, 32).splitlines() == ["  because of  weights and many", "              other words"]


def test_a_verdict_stays_on_one_line_where_a_single_space_makes_room() -> None:
    table = Table("", ("GiB", "peak", ""), [("prompt-tuning", "19.83", "does not fit")], "lrl")
    assert render(table, 34).splitlines()[1] == "  prompt-tuning 19.83 does not fit"


def test_a_word_too_long_is_broken_after_a_hyphen() -> None:
    assert wrap("--gradient-checkpointing", 14) == ["--gradient-", "checkpointing"]
    assert wrap("checkpointing", 8) == ["checkpoi", "nting"]


def test_a_ragged_table_is_a_bug() -> None:
    with pytest.raises(ValueError, match="ragged"):
        Table("", ("a", "b"), [("1",)], "lr")


def test_colour_only_repeats_words() -> None:
    table = Table("", ("", ""), [("qlora", "fits"), ("lora", "tight"), ("full", "does not fit")], "ll")
    coloured = render(table, colour=True)
    for code in ("32", "33", "31"):
        assert f"\x1b[{code}m" in coloured
        coloured = coloured.replace(f"\x1b[{code}m", "")
    assert coloured.replace("\x1b[0m", "") == render(table)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colour_is_for_terminals_that_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert wants_colour(Terminal()) and not wants_colour(io.StringIO())
    monkeypatch.setenv("TERM", "dumb")
    assert not wants_colour(Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    assert not wants_colour(Terminal())


@pytest.mark.parametrize(
    ("columns", "width"),
    [("60", 60), ("200", 80), ("10", 40), ("", 80), ("wide", 80), ("0", 80), ("²", 80), ("9" * 5000, 80)],
)
def test_the_width_follows_the_terminal_up_to_80(monkeypatch: pytest.MonkeyPatch, columns: str, width: int) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert terminal_width(io.StringIO()) == width


@given(st.integers(0, 10**12), st.integers(0, 10**12), st.integers(1, 60))
def test_a_bar_is_in_proportion_and_never_too_long(size: int, full: int, width: int) -> None:
    drawn = bar(size, full, width)
    assert len(drawn) <= width
    if full:
        assert abs(len(drawn) - width * min(size / full, 1)) <= 1


@given(st.text("ab- ", max_size=60), st.integers(1, 20))
def test_wrapping_keeps_every_word(text: str, width: int) -> None:
    lines = wrap(text, width)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert all(len(line) <= width for line in lines)
