"""Write a command again with some of its options changed, so that an answer can say what to type next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import click

from peftbench.base.visible import quoted

WIDEST = 78


def retyped(params: Iterable[click.Parameter], given: dict[str, Any], changed: Sequence[str]) -> list[str]:
    """The options that were given, each quoted with its value, those of `changed` in place of theirs."""
    names = {word.replace("--no-", "--", 1) for word in changed if word.startswith("--")}
    pieces = [piece for param in params if param.opts[0] not in names for piece in _typed(param, given)]
    return [*pieces, *_options([quoted(word) for word in changed])]


def one_line(pieces: Iterable[str]) -> str:
    """`peftbench plan` with these words, quoted already, on one line."""
    return " ".join(("peftbench plan", *pieces))


def broken(words: Iterable[str]) -> str:
    """`peftbench plan` with these words, quoted already; lines are broken before an option."""
    lines = ["  peftbench plan"]
    for piece in _options(tuple(words)):
        if len(lines[-1]) + 1 + len(piece) <= WIDEST:
            lines[-1] += f" {piece}"
        else:
            lines.append(f"      {piece}")
    return " \\\n".join(lines)


def _typed(param: click.Parameter, given: dict[str, Any]) -> list[str]:
    """One option as it was typed; nothing where it was left at its default."""
    value = given.get(param.name or "")
    if value is None or (value is False and not param.secondary_opts) or value == param.default:
        return []
    if isinstance(value, bool):
        return [param.opts[0] if value else param.secondary_opts[0]]
    values = value if isinstance(value, tuple) else (value,)
    return [f"{param.opts[0]} {quoted(str(each))}" for each in values]


def _options(words: Sequence[str]) -> list[str]:
    """Join each option with its value."""
    pieces: list[str] = []
    for word in words:
        if word.startswith("--") or not pieces:
            pieces.append(word)
        else:
            pieces[-1] += f" {word}"
    return pieces
