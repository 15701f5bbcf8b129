r"""Text that came from outside, made fit to show: nothing of it moves a cursor, hides, turns around or floods a screen.

What is not printable by Unicode's own tables (controls, escapes, marks of direction, zero widths, other separators than
the space, halves of surrogate pairs) is written out as Python writes it: an escape as `\x1b`, a line break as `\n`.
"""

from __future__ import annotations

from enum import Enum
from reprlib import Repr
from typing import Any

LONGEST_WORD = 160
LONGEST = 1000
"""Characters of a sentence or a cell: the longest of our own have 500."""


def visible(text: str) -> str:
    """The whole text in printable characters; a backslash that was there stays single."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def visible_lines(text: str) -> str:
    """The same, but line breaks are kept."""
    if text.replace("\n", "").isprintable():
        return text
    return "\n".join(map(visible, text.split("\n")))


def one_line(text: str) -> str:
    """The same with a space for every run of white space, where a text of several lines has to be one."""
    return visible(" ".join(text.split()))


def shown(text: str) -> str:
    """Visible, and short enough for a screen: long words and long texts lose their middle."""
    if len(text) <= LONGEST_WORD and text.isprintable():
        return text
    words = (shortened(word, LONGEST_WORD) for word in shortened(visible(text), 8 * LONGEST).split(" "))
    return shortened(" ".join(words), LONGEST)


def quoted(word: str) -> str:
    """The word as a shell takes it, in printable characters: bash and zsh read the bytes of $'\\x1b' as they were."""
    from shlex import quote

    return quote(word) if word.isprintable() else f"$'{''.join(map(_bytes_of, word))}'"


def _bytes_of(letter: str) -> str:
    if letter.isprintable() and letter not in "'\\":
        return letter
    from_bytes = "surrogateescape" if "\udc80" <= letter <= "\udcff" else "surrogatepass"
    return "".join(f"\\x{byte:02x}" for byte in letter.encode("utf-8", from_bytes))


def shown_lines(text: str) -> str:
    """The same for a text of several lines."""
    return shortened("\n".join(map(shown, text.split("\n"))), LONGEST)


def shortened(text: str, most: int) -> str:
    """At most so many characters: the beginning and the end of a longer text."""
    if len(text) <= most:
        return text
    kept = most - 1
    return f"{text[: kept - kept // 3]}…{text[len(text) - kept // 3 :]}"


class _Shortened(Repr):
    """Plain values at a readable length; the rest by its type, since its own repr may be endless, or fail."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxother = 2, 60
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = 3
        self.maxstring = 60

    def repr_int(self, x: int, level: int) -> str:
        """Python refuses to write integers of thousands of digits."""
        return repr(x) if x.bit_length() < 150 else f"a number of {round(x.bit_length() * 0.30103):,} digits"

    def repr_instance(self, x: Any, level: int) -> str:
        """A number that is no float or int, True, False, None or an Enum as they are; else the name of the type."""
        if isinstance(x, dict):
            return self.repr_dict(x, level)
        plain = x is None or isinstance(x, (bool, float, complex, Enum))
        return repr(x) if plain else f"an object of type {type(x).__name__}"


def written(value: object) -> str:
    """A wrong value in an error message, as Python writes it, cut to about 60 characters."""
    text = _Shortened().repr(value)
    return text if len(text) <= 70 else f"{text[:67]}..."
