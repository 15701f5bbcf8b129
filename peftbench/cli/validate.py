"""`peftbench validate`: how far the predictions are from published measurements."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from peftbench.cli.catalogue import format_option, write
from peftbench.errors import PeftbenchError

if TYPE_CHECKING:
    from peftbench.check.published import PublishedRecord
    from peftbench.check.validation import ValidationReport

TOO_INACCURATE = 1
"""The exit code of --fail-above; bad input is 2."""


@click.command("validate", short_help="Compare predictions with published measurements.")
@click.argument("path", type=click.Path(path_type=str))
@click.option("--by", type=click.Choice(("method", "source", "model")), default="method", show_default=True,
              help="What to group the errors by.")  # fmt: skip
@click.option("--rows", "list_rows", is_flag=True, help="List every record with its error instead.")
@click.option("--dry-run", is_flag=True,
              help="Predict by dry run: minutes the first time, from the cache afterwards.")  # fmt: skip
@click.option("--fail-above", metavar="PERCENT",
              help="Exit with code 1 when an allocated peak is off by more than this, as in 6%.")  # fmt: skip
@format_option
def validate(path: str, by: str, list_rows: bool, dry_run: bool, fail_above: str | None, format_: str) -> None:
    """Predict every measured run of PATH, a .jsonl file of records or a folder of them, and print the errors.

    Allocated, reserved and device figures are each compared with the prediction of that size.
    """
    from peftbench.check.published import read_records
    from peftbench.report.accuracy import accuracy_data, accuracy_table, rows_data, rows_table

    limit = _fraction(fail_above) if fail_above is not None else math.inf
    note = "Percent. An error is predicted / measured - 1; median, p90 and worst are of absolute values. "
    note += "Band: how many figures lie inside the predicted band."
    report, left_out = _by_dry_run(read_records(path)) if dry_run else (_by_formula(read_records(path)), "")
    note += left_out
    if list_rows:
        write(rows_table(report.rows), rows_data(report.rows), note, format_)
    else:
        accuracies = report.accuracies(by)
        write(accuracy_table(accuracies, by), accuracy_data(accuracies), note, format_)
    if report.worst_allocated_error > limit:
        click.echo(f"Off by {report.worst_allocated_error:.2%} at worst, more than {fail_above}.", err=True)
        raise click.exceptions.Exit(TOO_INACCURATE)


def _by_formula(records: Iterable[PublishedRecord]) -> ValidationReport:
    from peftbench.check.validation import validate as compare

    return compare(records)


def _by_dry_run(records: Iterable[PublishedRecord]) -> tuple[ValidationReport, str]:
    """The report, and how many records it leaves out."""
    from peftbench.check.dry_validation import by_dry_run, split
    from peftbench.check.validation import validate as compare
    from peftbench.cli.progress import Progress, tell
    from peftbench.dryrun.session import DryRunSession

    known, others = split(records)
    with DryRunSession(tell=tell) as session, Progress("dry runs") as progress:
        places = {record.id: place for place, record in enumerate(known)}
        report = compare(known, by_dry_run(session, lambda id, share: progress((places[id] + share) / len(known))))
    left_out = f" {len(others)} records of GPTQ are left out: it cannot be dry-run."
    return report, left_out if others else ""


def _fraction(text: str) -> float:
    """Read "6%" or "6" as 0.06."""
    try:
        percent = float(text.strip().removesuffix("%"))
    except ValueError:
        percent = math.nan
    if not 0 <= percent < math.inf:
        raise PeftbenchError(
            f"--fail-above takes a percentage, not {text!r}.", "Write it as in --fail-above 6%"
        )
    return percent / 100
