"""A table as a value: made by views, written by one renderer a format."""

from __future__ import annotations

from collections.abc import Sequence

UNKNOWN = "—"
"""What stands in a cell for None."""


class Table:
    """Headings and rows of text; `alignments` has one letter a column, l or r."""

    __slots__ = ("alignments", "headings", "rows", "title")

    def __init__(self, title: str, headings: tuple[str, ...], rows: Sequence[tuple[str, ...]], alignments: str) -> None:
        if any(len(row) != len(headings) for row in rows) or len(alignments) != len(headings):
            raise ValueError(f"ragged table {title!r}")
        self.title = title
        self.headings = headings
        self.rows = rows
        self.alignments = alignments
