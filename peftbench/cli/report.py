"""`peftbench report`: show measured runs beside their predictions, as a table, a page or rows for a program."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from peftbench.base.errors import PeftbenchError

if TYPE_CHECKING:
    from peftbench.check.runs.comparison import Comparison
    from peftbench.records.comparison import ComparisonRecord
    from peftbench.report.format.table import Table

FORMATS = ("terminal", "csv", "markdown", "html", "json")
STDOUT = "-"


@click.command("report", short_help="Show measured runs beside what is predicted for them.")
@click.argument("path")
@click.option("--format", "format_", type=click.Choice(FORMATS), default="terminal", show_default=True,
              help="How to show the runs.")  # fmt: skip
@click.option("--output", "-o", metavar="FILE",
              help="The file to write; - for stdout. Default: report.html for html, else stdout.")  # fmt: skip
def report(path: str, format_: str, output: str | None) -> None:
    """Show the runs of PATH, a .jsonl file that `peftbench run` wrote or a folder of such.

    \b
      peftbench report results/cpu
      peftbench report results --format html -o runs.html
      peftbench report results --format csv > runs.csv

    The page is one file that loads nothing from the network. CSV has a row a record, with units in the column names.
    """
    from peftbench.check.runs.comparison import compare
    from peftbench.cli.progress import tell
    from peftbench.records.file import holds_records, read_results, record_files

    found = [read_results(file, tell) for file in record_files(path) if holds_records(file)]
    runs = [record for results in found for record in results.runs]
    compared = tuple(record for results in found for record in results.comparisons)
    if not runs and not compared:
        raise PeftbenchError(f"{path} holds no record of a run.", "Make some: peftbench run. Published ones: validate.")
    _write(_rendered(compare(runs), compared, format_), output or ("report.html" if format_ == "html" else STDOUT))


def _rendered(comparisons: tuple[Comparison, ...], compared: tuple[ComparisonRecord, ...], format_: str) -> str:
    if format_ == "html":
        from peftbench.report.runs.html import runs_html

        return runs_html(comparisons, compared)
    if format_ == "json":
        from peftbench.report.runs.rows import runs_json

        return runs_json(comparisons, compared)
    if format_ == "csv":
        return _csv(comparisons, compared)
    tables = _tables(comparisons, compared)
    if format_ == "markdown":
        from peftbench.report.format.markdown import render as render_markdown

        return "\n\n".join(render_markdown(table) for table in tables)
    from peftbench.report.format.terminal import encodable, render, terminal_width

    width = terminal_width()
    text = "\n\n".join(render(table, width, indent="") for table in tables)
    return encodable(text, getattr(sys.stdout, "encoding", None))


def _tables(comparisons: tuple[Comparison, ...], compared: tuple[ComparisonRecord, ...]) -> list[Table]:
    from peftbench.report.comparisons.table import comparison_tables
    from peftbench.report.runs.table import runs_tables

    return [*runs_tables(comparisons), *(table for record in compared for table in comparison_tables(record))]


def _csv(comparisons: tuple[Comparison, ...], compared: tuple[ComparisonRecord, ...]) -> str:
    """One kind of row: that of runs where there are any."""
    if not comparisons:
        from peftbench.report.comparisons.rows import comparisons_csv

        return comparisons_csv(compared)
    from peftbench.cli.progress import tell
    from peftbench.report.runs.rows import runs_csv

    if compared:
        tell("comparisons have other columns and are left out; name their file alone, or use --format json.")
    return runs_csv(comparisons)


def _write(text: str, path: str) -> None:
    if path == STDOUT:
        click.echo(text)
        return
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text if text.endswith("\n") else text + "\n")
    except OSError as error:
        raise PeftbenchError(f"cannot write {path}: {error.strerror}.", "Name another file with -o.") from None
    click.echo(f"{path}: open it in a browser" if path.endswith(".html") else path, err=not path.endswith(".html"))
