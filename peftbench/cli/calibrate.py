"""`peftbench calibrate`: fit what is particular to a card from its runs, for plans to use in place of priors."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import click

from peftbench.base.errors import CatalogError
from peftbench.base.screen import tell
from peftbench.check.calibration.fit import calibrate as fitted
from peftbench.cli.ask.format_option import format_option, show
from peftbench.decide.calibrated import card_name
from peftbench.records.calibration import default_path, write_calibration
from peftbench.records.file import read_results
from peftbench.report.lists.known import calibration_sheet


@click.command("calibrate")
@click.argument("path", type=click.Path(path_type=str))
@click.option("--output", "-o", metavar="FILE",
              help="The file to write. Default: where `plan` looks for the card's.")  # fmt: skip
@format_option
def calibrate(path: str, output: str | None, format_: str) -> None:
    """Fit context, allocator slack, efficiency, launch floor and dequantization of the one card that the records of
    PATH are of, and write them to a small file that `plan` uses for this card.

    \b
      peftbench calibrate results/l4
      peftbench calibrate results/l4 -o l4.json
      peftbench plan --model 8b --gpu l4 --calibration l4.json

    A constant that the records say too little about keeps its prior. Errors are of cases that were left out of the fit.
    """
    runs = read_results(path, tell, curves=0).runs
    if not runs:
        raise CatalogError(f"{path} holds no record of a run.", "Measure some: peftbench run SUITE")
    found = fitted(runs, datetime.now(timezone.utc).strftime("%Y-%m-%d"))
    file = Path(output) if output else default_path(card_name(found.product))
    write_calibration(found, file)
    show(calibration_sheet(found), format_)
    tell(f"written to {file}", label="")
