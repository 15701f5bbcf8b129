"""One input of the fuzzer: a command line with the files it reads, or a call from Python. A seed makes it again."""

from __future__ import annotations

import random
from typing import Any, NamedTuple


class Case(NamedTuple):
    """What is tried."""

    kind: str
    number: int
    words: tuple[str, ...] = ()
    """Of the command line, in a folder of its own that has the files."""
    files: tuple[tuple[str, bytes], ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    call: tuple[str, dict[str, Any]] | None = None
    """In place of a command line: the name of something in peftbench, and what it is given."""
    keeps_good_lines: bool = False
    """Whether the files have good records beside the wrong one, which have to be answered from."""
    never_stops: bool = False
    """Whether the wrong file is one that nobody named, so that there is an answer all the same."""
    spoils_cache: bool = False
    """Whether it is asked twice, with the cached dry run spoilt in between."""

    @property
    def text(self) -> str:
        """As a person reads it; long values shortened."""
        if self.call:
            return f"{self.call[0]}({', '.join(f'{name}={_short(value)}' for name, value in self.call[1].items())})"
        files = "".join(f"\n    {name}: {_short(content)}" for name, content in self.files)
        settings = " ".join(f"{name}={value}" for name, value in self.environment)
        return f"{settings} peftbench {' '.join(map(_short, self.words))}{files}".strip()


def _short(value: object) -> str:
    try:
        shown = value if isinstance(value, str) and value.isascii() and value.isprintable() and value else repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits
        shown = type(value).__name__
    return shown if len(shown) <= 400 else f"{shown[:300]}…({len(shown)})"


def chance_of(seed: int, kind: str, number: int) -> random.Random:
    """What one input is drawn from: the same for the same place in the same campaign, whatever came before it."""
    return random.Random(f"{seed} {kind} {number}")
