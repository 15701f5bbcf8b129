"""The one way out to a terminal: stdout and stderr get their text here, printable and in the stream's own encoding."""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress
from io import TextIOWrapper
from typing import IO, Any

import click

from peftbench.base.visible import shown, visible, visible_lines

_COLOURS = {"fits": "32", "tight": "33", "risky": "35", "does not fit": "31"}
"""Green, yellow, magenta and red for a cell that says the same in words."""
_PAINTED = {word: f"\x1b[{code}m{word}\x1b[0m" for word, code in _COLOURS.items()}
_ASCII = str.maketrans(
    {"·": "-", "—": "-", "–": "-", "×": "x", "…": "...", "≥": ">=", "±": "+-", "→": "->", "¹": "^1", "²": "^2"}
    | {"█": "#"}
    | dict.fromkeys("▏▎▍", "")
    | dict.fromkeys("▌▋▊▉", "#")
)


def say(text: str, end: str = "\n") -> None:
    """Print text on stdout: lines are kept, whatever else is not printable is written out."""
    _put(_harmless(text) + end, error=False)


def tell(text: str, label: str = "note  ") -> None:
    """Print one line on stderr that is no part of the answer."""
    _put_beside(label + shown(text) + "\n")


def fail(text: str) -> None:
    """Print the lines of an error on stderr."""
    _put(visible_lines(text) + "\n", error=True)


def redraw(text: str) -> None:
    """Write over the line of stderr that the cursor is in, and leave it there."""
    _put_beside(f"\r{visible(text)}")


def put_page(page: str) -> None:
    """Write an HTML page on stdout as it is: in UTF-8, which it says that it is in."""
    click.echo(page.encode("utf-8", "backslashreplace"), nl=False)


def take_any_character() -> None:
    """Let stdout and stderr replace what they cannot encode, whoever prints it: else Python ends in a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def fill_closed_streams() -> None:
    """Keep the numbers of standard streams that are closed from the next files that are opened, records among them.

    What is printed on a closed stream goes nowhere, as its user wants it.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 (open to the end)


def drop(stream: IO[Any]) -> None:
    """Let what is still buffered go nowhere when Python flushes the stream at exit."""
    with suppress(OSError):  # a stand-in that is no file has nothing to flush
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def painted(word: str) -> str:
    """A verdict in its colour; other words stay as they are."""
    return _PAINTED.get(word, word)


def is_verdict(word: str) -> bool:
    """Whether the word has a colour."""
    return word in _COLOURS


def encodable(text: str, encoding: str | None) -> str:
    """The text itself, or its nearest ASCII where the stream cannot encode it: `#` for bars."""
    try:
        text.encode(encoding or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return text.translate(_ASCII).encode("ascii", "replace").decode("ascii")
    return text


def _put_beside(text: str) -> None:
    """Print on stderr what may be missing: where that is full or closed, the answer goes on without."""
    try:
        _put(text, error=True)
    except OSError:
        drop(sys.stderr)


def _put(text: str, error: bool) -> None:
    stream = sys.stderr if error else sys.stdout
    click.echo(encodable(text, getattr(stream, "encoding", None)), nl=False, err=error)


def _harmless(text: str) -> str:
    """Printable lines. Of escapes only a verdict in its own colour is kept, whoever wrote it."""
    if text.replace("\n", "").isprintable():
        return text
    pieces = re.split(f"({'|'.join(map(re.escape, _PAINTED.values()))})", text)
    return "".join(piece if number % 2 else visible_lines(piece) for number, piece in enumerate(pieces))
