"""`peftbench validate`: how good the predictions are, on measurements that others published and on our own runs."""

from __future__ import annotations

import math
from typing import NamedTuple

import click

from peftbench.base.errors import PeftbenchError
from peftbench.base.screen import tell
from peftbench.check.calibration.validation import compare_calibrated, step_accuracy
from peftbench.check.memory.published import PublishedRecord, published_reader
from peftbench.check.memory.validation import ValidatedRow, ValidationReport
from peftbench.check.memory.validation import validate as compare
from peftbench.check.runs.comparison import Comparison
from peftbench.check.runs.comparison import compare as compare_runs
from peftbench.check.runs.dry_validation import by_dry_run, by_dry_run_of_case, split
from peftbench.check.runs.parts import accuracies_of_parts, part_rows
from peftbench.check.runs.validation import promises_of, run_rows
from peftbench.check.speed.published_speed import read_speeds
from peftbench.check.speed.throughput import GROUPS, LEFT_OUT, accuracies, leave_one_out, possible
from peftbench.cli.ask.format_option import format_option, show
from peftbench.cli.ask.options import SECONDS
from peftbench.cli.progress import Progress
from peftbench.dryrun.session import DryRunSession
from peftbench.records.file import Record, is_published, record_of
from peftbench.records.lines import read_lines
from peftbench.records.run import RunRecord
from peftbench.report.lists.accuracy import (
    accuracy_sheet,
    parts_sheet,
    rows_sheet,
    speed_rows_sheet,
    speed_sheet,
    with_promises,
)

TOO_INACCURATE = 1
"""The exit code of --fail-above; bad input is 2."""
NOTE = (
    "Percent. An error is predicted / measured - 1; median, p90 and worst are of absolute values. "
    "Band: how many figures lie inside the predicted band."
)


@click.command("validate")
@click.argument("path", type=click.Path(path_type=str))
@click.option("--by", type=click.Choice(("method", "source", "model", "device", "part", "generation", "framework")),
              default="method", show_default=True,
              help="What to group the errors by. part: of our own runs; generation of the card, framework: of speeds.")
@click.option("--rows", "list_rows", is_flag=True, help="List every record with its error instead.")
@click.option("--dry-run", is_flag=True,
              help="Predict by dry run: minutes the first time, from the cache afterwards.")  # fmt: skip
@click.option("--timeout", type=SECONDS,
              help="End a dry run that gives no sign of life for so long.  [default: 600]")  # fmt: skip
@click.option("--fail-above", metavar="PERCENT",
              help="Exit with code 1 when an allocated peak is off by more than this, as in 6%.")  # fmt: skip
@click.option("--calibration", metavar="FILE",
              help="Predict runs of `peftbench run` with it, but not those it was fitted on.")  # fmt: skip
@format_option
def validate(
    path: str, by: str, list_rows: bool, dry_run: bool, timeout: float | None, fail_above: str | None,
    calibration: str | None, format_: str,
) -> None:  # fmt: skip
    """Predict every measured run of PATH, a .jsonl file of records or a folder of them, and print the errors.

    Allocated, reserved and device figures are each compared with the prediction of that size. For runs of `peftbench
    run` verdicts are laid beside outcomes as well: a broken promise was predicted to fit and ran out of memory.
    A .csv file of training speeds is compared with the expected times of a step.
    """
    if timeout and not dry_run:
        raise PeftbenchError("--timeout has no effect without --dry-run.", "Add --dry-run, or leave it out.")
    if path.endswith(".csv"):
        if dry_run or calibration or fail_above:
            raise PeftbenchError("a CSV holds training speeds.", "Leave out what is of memory: give --by or --rows.")
        _validate_speed(path, by, list_rows, format_)
        return
    if by in ("generation", "framework"):
        raise PeftbenchError(f"--by {by} is of training speeds.", "Give a .csv of them, or another grouping.")

    limit = _fraction(fail_above) if fail_above is not None else math.inf
    if dry_run and calibration:
        raise PeftbenchError("a calibration is of formulas.", "Leave out --dry-run or --calibration.")
    found = _validated(*_read(path), dry_run, timeout, calibration)
    report = found.report
    if list_rows:
        sheet = rows_sheet(report.rows, found.note)
    elif by == "part":
        parts = accuracies_of_parts(row for comparison in found.comparisons for row in part_rows(comparison))
        sheet = parts_sheet(parts, "Percent of each run's allocated peak, the worst first.")
    else:
        sheet = accuracy_sheet(report.accuracies(by), by, found.note)
    show(with_promises(sheet, promises_of(found.comparisons)), format_)
    if report.worst_allocated_error > limit:
        tell(f"Off by {report.worst_allocated_error:.2%} at worst, more than {fail_above}.", label="")
        raise click.exceptions.Exit(TOO_INACCURATE)


class _Validated(NamedTuple):
    """All of it beside its predictions."""

    report: ValidationReport
    comparisons: tuple[Comparison, ...]
    note: str


def _read(path: str) -> tuple[tuple[PublishedRecord, ...], tuple[RunRecord, ...]]:
    """The published records and the runs of a path."""
    published_of = published_reader()

    def read(value: object) -> PublishedRecord | Record:
        return published_of(value) if is_published(value) else record_of(value, curves=False)

    records = list(read_lines(path, read, tell))
    published = tuple(record for record in records if isinstance(record, PublishedRecord))
    runs = tuple(record for record in records if isinstance(record, RunRecord))
    if not published and not runs:
        what = f"{path} holds no run that is predicted; variants that were compared with each other are not."
        raise PeftbenchError(what, "Look at those: peftbench report.")
    return published, runs


def _validated(
    published: tuple[PublishedRecord, ...], runs: tuple[RunRecord, ...], dry_run: bool, timeout_s: float | None,
    calibration: str | None,
) -> _Validated:  # fmt: skip
    if dry_run:
        rows, comparisons, left_out = _by_dry_run(published, runs, timeout_s)
    else:
        rows, left_out = compare(published, tell).rows, ""
        comparisons = compare_calibrated(runs, calibration) if calibration else compare_runs(runs)
    own = tuple(row for comparison in comparisons for row in run_rows(comparison))
    unpredicted = sum(comparison.profile is None for comparison in comparisons)
    note = f"{NOTE}{left_out}" + (f" {unpredicted} runs have no prediction." if unpredicted else "")
    steps = None if dry_run else step_accuracy(runs, calibration)
    note += f" {steps.text}" if steps else ""
    return _Validated(ValidationReport((*rows, *own)), comparisons, note)


def _by_dry_run(
    published: tuple[PublishedRecord, ...], runs: tuple[RunRecord, ...], timeout_s: float | None
) -> tuple[tuple[ValidatedRow, ...], tuple[Comparison, ...], str]:
    """The rows of published records, runs beside their predictions, and how many records are left out."""
    known, others = split(published)
    places: dict[object, int] = {record.id: place for place, record in enumerate(known)}
    places |= {id(record): len(known) + place for place, record in enumerate(runs)}
    with DryRunSession(tell=tell, timeout_s=timeout_s) as session, Progress("dry runs") as progress:

        def report(key: object, share: float) -> None:
            progress((places[key] + share) / len(places))

        rows = compare(known, tell, by_dry_run(session, report)).rows
        predict = by_dry_run_of_case(session, lambda record, share: report(id(record), share))
        comparisons = compare_runs(runs, predict)
    why = "records of GPTQ, DeepSpeed or FSDP1 are left out: a dry run knows none of them."
    left_out = f" {len(others)} {why}" if others else ""
    return rows, comparisons, left_out


def _validate_speed(path: str, by: str, list_rows: bool, format_: str) -> None:
    """Predict every source, card or framework by constants fitted to the others, and print how far off that is."""
    if by not in GROUPS:
        raise PeftbenchError(f"--by {by} is of memory.", f"Choose one of {', '.join(GROUPS)}.")
    records = read_speeds(path, tell)
    kept = possible(records)
    left_out = by if by in LEFT_OUT else "source"
    rows = leave_one_out(kept, left_out)
    if not rows:
        raise PeftbenchError(f"{path} holds no row that can be predicted.", "Give a CSV like throughput.csv.")
    note = (
        f"Seconds of a step, predicted by constants fitted without the row's {left_out}. Factors are predicted / "
        "measured or its inverse, whichever is above 1; the bias is the geometric mean of predicted / measured. "
        f"{len(records) - len(kept)} impossible rows are left out: they would need over 90 % of the data sheet's rate."
    )
    show(speed_rows_sheet(rows, note) if list_rows else speed_sheet(accuracies(rows, by), by, note), format_)


def _fraction(text: str) -> float:
    """Read "6%" or "6" as 0.06."""
    try:
        percent = float(text.strip().removesuffix("%"))
    except ValueError:
        percent = math.nan
    if not 0 <= percent < math.inf:
        raise PeftbenchError(f"--fail-above takes a percentage, not {text!r}.", "Write it as in --fail-above 6%")
    return percent / 100
