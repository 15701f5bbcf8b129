"""`peftbench report`: show measured runs beside their predictions, as a table, a page or rows for a program."""

from __future__ import annotations

import click

from peftbench.base.errors import PeftbenchError
from peftbench.base.screen import say, tell
from peftbench.check.runs.comparison import compare
from peftbench.cli.ask.format_option import format_option, show, write_file
from peftbench.records.file import read_results
from peftbench.report.format.writers import written
from peftbench.report.runs.sheet import CURVES, runs_sheet

STDOUT = "-"


@click.command("report")
@click.argument("path")
@format_option
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
    runs, compared = read_results(path, tell, CURVES if format_ == "html" else 0)
    if not runs and not compared:
        raise PeftbenchError(f"{path} holds no record of a run.", "Make some: peftbench run. Published ones: validate.")
    file = output or ("report.html" if format_ == "html" else STDOUT)
    sheet = runs_sheet(compare(runs), compared, tell)
    if file == STDOUT:
        show(sheet, format_)
        return
    write_file(file, written(sheet, format_).removesuffix("\n") + "\n", "Name another file with -o.")
    if file.endswith(".html"):
        say(f"{file}: open it in a browser")
    else:
        tell(file, label="")
