"""Text from outside: nothing of it reaches a terminal that is not printable, and it stays short."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from peftbench.base.errors import PeftbenchError
from peftbench.base.visible import LONGEST, LONGEST_WORD, one_line, shortened, shown, visible, visible_lines


def test_what_would_act_on_a_terminal_is_written_out() -> None:
    assert visible("a\x1b]0;x\x07\r\n\x7f\x9b2J") == r"a\x1b]0;x\x07\r\n\x7f\x9b2J"
    assert visible("\u202e\u2066\u200b\u2028\ufeff\udcff\ud800") == r"\u202e\u2066\u200b\u2028\ufeff\udcff\ud800"
    assert visible("modèle_8b 模型 · ×") == "modèle_8b 模型 · ×"
    assert visible_lines("a\nb\tc") == "a\nb\\tc"
    assert one_line("a \n\t b\x1b") == r"a b\x1b"


@given(st.text(st.characters(), max_size=300))
def test_every_text_becomes_printable(text: str) -> None:
    assert visible(text).isprintable() and one_line(text).isprintable() and shown(text).isprintable()
    assert visible_lines(text).replace("\n", "").isprintable()
    assert visible(visible(text)) == visible(text)


@given(st.text(max_size=50), st.integers(2, 60))
def test_a_shortened_text_keeps_its_ends(text: str, most: int) -> None:
    short = shortened(text, most)
    assert len(short) <= most and short[:1] == text[:1] and (short == text or "…" in short)


def test_a_screen_is_not_flooded() -> None:
    assert shown("a" * 10_000_000) == shortened("a" * 8000, LONGEST_WORD)
    assert len(shown("a b " * 100_000)) == LONGEST
    assert len(str(PeftbenchError("x" * 10**6, "y" * 10**6))) < 3 * LONGEST_WORD


def test_an_error_is_one_line_and_its_hint() -> None:
    assert str(PeftbenchError("no \x1b\nError: fine", "one\n  two")) == "no \\x1b\\nError: fine\n  one\n  two"
