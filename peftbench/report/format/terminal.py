"""Text for the terminal: tables, bars and wrapped notes; plain in pipes, at most 80 columns wide."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import TextIO

from peftbench.base.screen import is_verdict, painted
from peftbench.base.visible import shown
from peftbench.report.format.sheet import Page, Table

WIDEST, NARROWEST = 80, 40
NARROWEST_COLUMN = 12
GAP = "  "

_EIGHTHS = " ▏▎▍▌▋▊▉"


class Style:
    """How the terminal wants its text."""

    __slots__ = ("colour", "width")

    def __init__(self, width: int, colour: bool = False) -> None:
        self.width = width
        self.colour = colour


def terminal_width(stream: TextIO | None = None) -> int:
    """Columns to write: those of the terminal, at most 80; COLUMNS wins. (shutil would cost milliseconds.)"""
    columns = os.environ.get("COLUMNS", "")[:9]
    if columns.isdecimal() and int(columns):
        return max(NARROWEST, min(int(columns), WIDEST))
    try:
        return max(NARROWEST, min(os.get_terminal_size((stream or sys.stdout).fileno()).columns, WIDEST))
    except (OSError, ValueError, AttributeError):
        return WIDEST


def wants_colour(stream: TextIO | None) -> bool:
    """Colour for a person at a terminal who has not asked for none (NO_COLOR, TERM=dumb); None is a closed stream."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return stream is not None and stream.isatty() and not plain


def bar(size: int, full: int, width: int) -> str:
    """A bar whose whole `width` stands for `full`, in eighths of a character; longer ones are cut."""
    eighths = min(round(8 * width * size / full), 8 * width) if full > 0 else 0
    whole, part = divmod(max(eighths, 0), 8)
    return ("█" * whole + _EIGHTHS[part]).rstrip()


def page(page: Page, width: int) -> str:
    """What was asked, tables and notes; the title is for pages that stand alone."""
    blocks = ["\n".join(wrap(line, width)) for line in page.lead]
    blocks += [render(table, width, indent="") for table in page.tables]
    notes = "\n".join(labelled(note.label, note.text, width) for note in page.notes)
    return "\n\n".join([*blocks, *([notes] if notes else [])])


def render(table: Table, width: int = WIDEST, colour: bool = False, indent: str = GAP) -> str:
    """Write a table with aligned columns; left-aligned ones are wrapped where lines would grow too long."""
    table = table.within(width) if table.spare else table
    lines = [*([table.headings] if any(table.headings) else ()), *(tuple(map(shown, row)) for row in table.rows)]
    widths, gap = _fitting(lines, table.alignments, width - len(indent))
    text = wrap(table.title, width) if table.title else []
    for line in lines:
        text += _rows(line, widths, table.alignments, colour, indent, gap)
    return "\n".join(text)


def _fitting(lines: list[tuple[str, ...]], alignments: str, room: int) -> tuple[list[int], str]:
    """Widths and gap: whole words two spaces apart, else one space, else words are broken too."""
    columns = list(zip(*lines, strict=True))
    natural = [max(map(len, column)) for column in columns]
    words = [max(len(word) for cell in column for word in _words(cell)) for column in columns]
    for gap, least in ((GAP, words), (" ", words), (" ", [NARROWEST_COLUMN] * len(columns))):
        left = room - len(gap) * (len(columns) - 1)
        widths = _narrowed(natural, least, alignments, left)
        if sum(widths) <= left:
            break
    return widths, gap


def _narrowed(widths: list[int], least: list[int], alignments: str, room: int) -> list[int]:
    """Take from the widest left-aligned column until all fits, leaving each at least so much."""
    narrowed = list(widths)
    while sum(narrowed) > room:
        wide = [i for i, letter in enumerate(alignments) if letter == "l" and narrowed[i] > least[i]]
        if not wide:
            break
        narrowed[max(wide, key=lambda i: narrowed[i])] -= 1
    return narrowed


def _words(cell: str) -> list[str]:
    """What stays on one line: the words, or a verdict as a whole."""
    return [cell] if is_verdict(cell) else cell.split(" ")


def _rows(
    cells: tuple[str, ...], widths: list[int], alignments: str, colour: bool, indent: str, gap: str
) -> Iterable[str]:
    """As many lines as the cell with the most needs."""
    wrapped = [wrap(cell, size) or [""] for cell, size in zip(cells, widths, strict=True)]
    for number in range(max(map(len, wrapped))):
        parts = [lines[number] if number < len(lines) else "" for lines in wrapped]
        padded = [_pad(*each, colour) for each in zip(parts, widths, alignments, strict=True)]
        yield (indent + gap.join(padded)).rstrip()


def _pad(cell: str, width: int, alignment: str, colour: bool) -> str:
    padded = cell.rjust(width) if alignment == "r" else cell.ljust(width)
    return padded.replace(cell, painted(cell)) if colour and cell else padded


def wrap(text: str, width: int) -> list[str]:
    """Break text between words into lines of at most `width`, and a longer word after a hyphen or where it must."""
    return joined(shown(text).split(" "), width)


def joined(words: Iterable[str], width: int) -> list[str]:
    """Lines of at most `width` made of words, which may have spaces in them."""
    lines: list[str] = []
    for word in words:
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += " " + word
            continue
        while len(word) > width:
            end = len(word[:width].rstrip("-").rpartition("-")[0]) + 1
            lines.append(word[: end if end > 2 else width])
            word = word[len(lines[-1]) :]
        lines.append(word)
    return lines


def reflow(text: str, width: int) -> list[str]:
    """Break the paragraphs of a docstring anew; indented lines, which are formulas, stay as they are."""
    lines: list[str] = []
    joined = ""
    for line in (*text.split("\n"), ""):
        if line and not line.startswith(" "):
            joined = f"{joined} {line}".lstrip()
            continue
        lines += wrap(joined, width) if joined else []
        lines += wrap(line, width) if line else [""]
        joined = ""
    return lines[:-1]


def labelled(label: str, text: str, width: int) -> str:
    """A note: "note  " and the text, wrapped under itself."""
    head = f"{label:<6}"
    lines = wrap(text, width - len(head))
    return "\n".join((head if number == 0 else " " * len(head)) + line for number, line in enumerate(lines))


def two_sided(left: str, right: str, width: int) -> str:
    """`left` at the margin and `right` at the other one, or on a line of its own where both do not fit."""
    left, right = shown(left), shown(right)
    gap = width - len(left) - len(right)
    return left + " " * gap + right if gap >= 2 else f"{left}\n{right}"
