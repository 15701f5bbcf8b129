"""One writer a format: a sheet in, its text out. A new format is a function here and its row in WRITERS."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from peftbench.base.visible import visible
from peftbench.report.format.sheet import Sheet

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def _terminal(sheet: Sheet) -> str:
    import sys

    from peftbench.report.format.terminal import Style, page, terminal_width, wants_colour

    style = Style(terminal_width(), wants_colour(sys.stdout))
    return sheet.screen(style) if sheet.screen else page(sheet.page(), style.width)


def _json(sheet: Sheet) -> str:
    """The document, names in its order; what is not finite is null, which JSON has."""
    from io import StringIO
    from json import dump

    file = StringIO()  # dumps would hold every piece of the text before it joins them
    dump(_finite(sheet.document()), file, indent=2, allow_nan=False)
    return file.getvalue()


def _csv(sheet: Sheet) -> str:
    """A heading and a line a row: plain numbers, unknown is empty, and no text that a spreadsheet would run."""
    import csv
    import io

    (columns, rows), file = sheet.rows(), io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(row.get(column)) for column in columns] for row in map(_finite, rows))
    return file.getvalue().rstrip("\n")


def _jsonl(sheet: Sheet) -> str:
    """An object a line with the columns of CSV: for jq, logs and data frames, which read one row after the other."""
    from json import dumps

    columns, rows = sheet.rows()
    flat = ({column: row.get(column) for column in columns} for row in map(_finite, rows))
    return "\n".join(dumps(row, allow_nan=False) for row in flat)


def _markdown(sheet: Sheet) -> str:
    from peftbench.report.format.markdown import page

    return page(sheet.page())


def _html(sheet: Sheet) -> str:
    from peftbench.report.format.html import page

    return page((sheet.whole or sheet.page)())


WRITERS: dict[str, Callable[[Sheet], str]] = {
    "terminal": _terminal, "json": _json, "csv": _csv, "jsonl": _jsonl, "markdown": _markdown, "html": _html,
}  # fmt: skip
FORMATS = tuple(WRITERS)


def written(sheet: Sheet, format_: str) -> str:
    """The sheet in one of FORMATS."""
    return WRITERS[format_](sheet)


def check_installed(format_: str) -> None:
    """Raise PeftbenchError where a format needs a package that is missing: before the work, not after it."""
    if format_ == "html":
        from peftbench.report.format.html import check_extra

        check_extra()


def _finite(value: Any) -> Any:
    """The same with None for every NaN and infinity."""
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _cell(value: object) -> object:
    """Lists and mappings are joined by spaces."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        value = " ".join(map(str, value))
    elif isinstance(value, dict):
        value = " ".join(f"{name}={each}" for name, each in value.items())
    if not isinstance(value, str):
        return value
    return visible(f"'{value}" if value.startswith(_FORMULA_STARTS) else value)
