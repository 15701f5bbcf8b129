"""An answer as a value: made by the reports, and turned into text by the writer of each format."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from peftbench.report.format.html import Section
    from peftbench.report.format.terminal import Style

UNKNOWN = "—"
"""What stands in a cell for None."""

Figure = dict[str, Any]
"""A plain dictionary of plotly's JSON, so that plotly itself is only loaded to write it."""
Row = Mapping[str, Any]
"""Plain values under names that carry their units: what programs read, and what columns of tables are made of."""


class Table:
    """Headings and rows of text; `alignments` has one letter a column, l or r.

    `spare` names columns that a narrow terminal goes without, each with the width from which it has room. Of the rows
    whose numbers are in `bad` the last cell says what went wrong.
    """

    __slots__ = ("alignments", "bad", "headings", "rows", "spare", "title")

    def __init__(
        self, title: str, headings: tuple[str, ...], rows: Sequence[tuple[str, ...]], alignments: str,
        spare: Mapping[str, int] | None = None, bad: Iterable[int] = (),
    ) -> None:  # fmt: skip
        if any(len(row) != len(headings) for row in rows) or len(alignments) != len(headings):
            raise ValueError(f"ragged table {title!r}")
        self.title = title
        self.headings = headings
        self.rows = rows
        self.alignments = alignments
        self.spare = spare or {}
        self.bad = frozenset(bad)

    def within(self, width: int) -> "Table":
        """The table without the columns that have no room in so many characters."""
        kept = [place for place, heading in enumerate(self.headings) if self.spare.get(heading, 0) <= width]
        headings, *rows = (tuple(cells[place] for place in kept) for cells in (self.headings, *self.rows))
        return Table(self.title, headings, rows, "".join(self.alignments[place] for place in kept))


class Column(NamedTuple):
    """How people are shown one thing of every row: its heading, where it is, its text and its side."""

    heading: str
    value: str | Callable[[Any], Any]
    """The name of a value in the row, or what takes it from there."""
    text: Callable[[Any], str] = str
    side: str = "l"
    room: int = 0
    """A terminal narrower than this goes without it."""

    def cell(self, row: Any) -> str:
        """The text of one row."""
        value = self.value(row) if callable(self.value) else row[self.value]
        return UNKNOWN if value is None else self.text(value)


def tabled(columns: Sequence[Column], rows: Iterable[Any], title: str = "", bad: Iterable[int] = ()) -> Table:
    """Rows as text."""
    cells = [tuple(column.cell(row) for column in columns) for row in rows]
    sides, spare = "".join(column.side for column in columns), {column.heading: column.room for column in columns}
    return Table(title, tuple(column.heading for column in columns), cells, sides, spare, bad)


class Note(NamedTuple):
    """A sentence after the tables."""

    text: str
    label: str = "note"


class Page(NamedTuple):
    """What a person reads. Terminals and Markdown have the tables, an HTML page the sections where there are any."""

    tables: Sequence[Table] = ()
    notes: Sequence[Note] = ()
    title: str = ""
    lead: Sequence[str] = ()
    """What was asked, in a line or two."""
    sections: Sequence["Section"] = ()
    footer: str = ""


class Sheet(NamedTuple):
    """An answer. Each format needs a part of it, so that the others are never made."""

    page: Callable[[], Page]
    document: Callable[[], object]
    rows: Callable[[], tuple[Sequence[str], Iterable[Row]]]
    """The names of the columns, and flat rows of numbers, words and lists of words."""
    screen: Callable[["Style"], str] | None = None
    """For the terminal, where it shows something else than the page."""
    whole: Callable[[], Page] | None = None
    """For HTML, where that has more than the page: figures, and tables of any length."""


def listing(
    title: str, columns: Sequence[Column], rows: Sequence[Row], note: str, shown: Iterable[Row] | None = None
) -> Sheet:
    """A list: its rows are the document as well. `shown` are the rows of the table where people see others."""
    shown_names = (column.value for column in columns if isinstance(column.value, str))
    names = tuple(dict.fromkeys(name for row in rows for name in row)) or tuple(shown_names)
    page = Page([tabled(columns, rows if shown is None else shown)], [Note(note)], title)
    return Sheet(lambda: page, lambda: rows, lambda: (names, rows))
