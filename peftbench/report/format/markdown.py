"""Markdown: a page for an issue, a pull request or a README."""

from __future__ import annotations

from peftbench.base.visible import shown
from peftbench.report.format.sheet import Page, Table


def page(page: Page) -> str:
    """Title, what was asked, tables and notes, a blank line between them."""
    title = [f"**{_cell(page.title)}**"] if page.title else []
    notes = [("* \\" if note.text.startswith("*") else "* ") + _cell(note.text) for note in page.notes]
    return "\n\n".join([*title, *map(_cell, page.lead), *map(render, page.tables), *notes])


def render(table: Table) -> str:
    """Write a table in GitHub's Markdown, its title in bold above it; cells cannot break the table."""
    from tabulate import tabulate

    rows = [[_cell(cell) for cell in row] for row in table.rows]
    headings = [_cell(heading) for heading in table.headings]
    align = ["right" if letter == "r" else "left" for letter in table.alignments]
    text: str = tabulate(rows, headings, tablefmt="github", colalign=align if rows else None, disable_numparse=True)
    return f"**{_cell(table.title)}**\n\n{text}" if table.title else text


_INERT = str.maketrans({"<": "&lt;", ">": "&gt;", "&": "&amp;"} | {letter: f"\\{letter}" for letter in "\\|`[]"})
"""No tag, entity, code or link of a text works, and no text ends its cell."""


def _cell(text: str) -> str:
    return shown(" ".join(text.split("\n"))).translate(_INERT)
