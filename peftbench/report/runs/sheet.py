"""The answer of `report` as a sheet: runs beside their predictions, and variants that were compared with each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from peftbench.base.screen import tell as tell_user
from peftbench.base.visible import one_line
from peftbench.check.runs.comparison import Comparison
from peftbench.records.comparison import ComparisonRecord
from peftbench.report.comparisons.rows import COLUMNS as COMPARISON_COLUMNS
from peftbench.report.comparisons.rows import comparison_rows
from peftbench.report.comparisons.table import comparison_tables
from peftbench.report.format.html import Section
from peftbench.report.format.sheet import Page, Row, Sheet, Table
from peftbench.report.runs.charts import PARTS, parts_figure, parts_of, scatter_figure, step_figure, time_figures
from peftbench.report.runs.rows import COLUMNS, SCHEMA_VERSION, run_row
from peftbench.report.runs.table import Group, few, group_table, grouped, on_card

EXPLAINED = (
    "Measured by peftbench. Predictions were made afresh from each run's recipe: allocated is torch's peak of tensors, "
    "device is what the driver sees beyond what was there before, process is the resident set with the libraries' "
    "code. What a run had reached that did not end well is marked ≥."
)

CURVES = 100
"""Runs whose memory over time a page has."""
POINTS, BARS, CHARTED = 2_000, 100, 20
"""Runs of a scatter chart, runs of a bar chart, and devices with their suites that have charts."""


def runs_sheet(
    comparisons: Sequence[Comparison], compared: Sequence[ComparisonRecord] = (),
    tell: Callable[[str], None] = tell_user,
) -> Sheet:  # fmt: skip
    """Rows are of one kind: those of the runs where there are any; `tell` gets what is left out of them."""
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

    places = [*(each.record.environment for each in comparisons), *(record.environment for record in compared)]
    products = few(place.product for place in places)
    title = one_line(f"{len(places):,} run{'s' * (len(places) != 1)} on {products}")
    return Page(title=title, sections=[*_sections(comparisons), *comparison_sections(compared)])


def _document(comparisons: Sequence[Comparison], compared: Sequence[ComparisonRecord]) -> object:
    return {
        "schema_version": SCHEMA_VERSION,
        "runs": map(run_row, comparisons),
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


# ── the page of runs ────────────────────────────────────────────────────────────────────────────────────────────────


def _sections(comparisons: Sequence[Comparison]) -> Iterator[Section]:
    """What was predicted beside what was measured, every suite on every device, and memory over time."""
    if not comparisons:
        return
    yield Section(text=EXPLAINED)
    label = "Allocated peaks, predicted against measured, on logarithmic axes"
    heading, shown = "Predicted against measured", comparisons[:POINTS]
    text = _shortened(shown, comparisons)
    yield Section(heading, text=text, figure=scatter_figure(shown), id="scatter", label=label)
    groups = grouped(comparisons)
    if len(groups) > CHARTED:
        yield Section(text=f"Of {len(groups):,} devices and suites the first {CHARTED} have charts.")
    for number, group in enumerate(groups):
        table = group_table(group, with_reasons=True)
        yield Section(table.title, table=table)
        if number < CHARTED:
            yield from _charts(group, number, table)
    if figures := time_figures(comparisons[:CURVES]):
        label, first = "Memory of the chosen run over time", next(iter(figures.values()))
        text = _shortened(comparisons[:CURVES], comparisons)
        yield Section("Memory over time", text=text, figure=first, id="over-time", label=label, choices=figures)


def _shortened(shown: Sequence[Comparison], all_: Sequence[Comparison]) -> str:
    """What a chart leaves out; tables have every run."""
    return f"The first {len(shown):,} of {len(all_):,} runs." if len(shown) < len(all_) else ""


def _charts(whole: Group, number: int, table: Table) -> Iterator[Section]:
    """Parts and step times of a device and suite."""
    group, text = whole[:BARS], _shortened(whole[:BARS], whole)
    measured = ("", "◆ measured, device" if on_card(group) else "◆ measured, tensors")
    yield Section(
        "What is predicted at the peak, and what was measured", level=3, text=text,
        legend=[*((PARTS[part], part.value) for part in parts_of(group)), measured],
        figure=parts_figure(group), id=f"parts-{number}", kind="chart card" if on_card(group) else "chart",
        label=f"Predicted parts and measured peaks: {table.title}",
    )  # fmt: skip
    if steps := step_figure(group):
        label = f"Time of a step: {table.title}"
        heading = "Time of a step, or of a generation"
        yield Section(heading, level=3, text=text, figure=steps, id=f"steps-{number}", label=label)
