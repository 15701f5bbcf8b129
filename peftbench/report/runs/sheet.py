"""The answer of `report` as a sheet: runs beside their predictions, and variants that were compared with each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from peftbench.check.runs.comparison import Comparison
from peftbench.records.comparison import ComparisonRecord
from peftbench.report.comparisons.rows import COLUMNS as COMPARISON_COLUMNS
from peftbench.report.comparisons.rows import comparison_rows
from peftbench.report.comparisons.table import comparison_tables
from peftbench.report.format.sheet import Page, Row, Sheet, one_line
from peftbench.report.runs.rows import COLUMNS, SCHEMA_VERSION, run_row
from peftbench.report.runs.table import group_table, grouped


def runs_sheet(
    comparisons: Sequence[Comparison], compared: Sequence[ComparisonRecord] = (), tell: Callable[[str], None] = print
) -> Sheet:
    """Rows are of one kind: those of the runs where there are any; `tell` is told what is left out of them."""
    return Sheet(
        lambda: _page(comparisons, compared),
        lambda: _document(comparisons, compared),
        lambda: _rows(comparisons, compared, tell),
        whole=lambda: _whole(comparisons, compared),
    )


def _page(comparisons: Sequence[Comparison], compared: Sequence[ComparisonRecord]) -> Page:
    """A table for each device and suite, in the order of the records, then those of the comparisons."""
    tables = [group_table(group) for group in grouped(comparisons)]
    return Page([*tables, *(table for record in compared for table in comparison_tables(record))])


def _whole(comparisons: Sequence[Comparison], compared: Sequence[ComparisonRecord]) -> Page:
    from peftbench.report.comparisons.page import comparison_sections
    from peftbench.report.runs.page import run_sections

    places = [*(each.record.environment for each in comparisons), *(record.environment for record in compared)]
    products = ", ".join(dict.fromkeys(place.product for place in places))
    title = one_line(f"{len(places)} run{'s' * (len(places) != 1)} on {products}")
    return Page(title=title, sections=[*run_sections(comparisons), *comparison_sections(compared)])


def _document(comparisons: Sequence[Comparison], compared: Sequence[ComparisonRecord]) -> object:
    return {
        "schema_version": SCHEMA_VERSION,
        "runs": [run_row(each) for each in comparisons],
        "comparisons": comparison_rows(compared),
    }


def _rows(
    comparisons: Sequence[Comparison], compared: Sequence[ComparisonRecord], tell: Callable[[str], None]
) -> tuple[Sequence[str], Iterable[Row]]:
    if comparisons and compared:
        tell("comparisons have other columns and are left out; name their file alone, or use --format json.")
    if comparisons:
        return COLUMNS, map(run_row, comparisons)
    return COMPARISON_COLUMNS, comparison_rows(compared)
