"""How `run` measures a suite of kind quality or latency: one child compares all variants, one record comes of it."""

from __future__ import annotations

import json
from pathlib import Path

import click

from peftbench.cli.progress import Progress, tell
from peftbench.inputs.comparison import ComparisonCase
from peftbench.inputs.suite import Suite
from peftbench.measure.child_process import Interrupted, Stop
from peftbench.measure.device.open import Device
from peftbench.measure.runner import FINISHED, finished, run_comparison
from peftbench.records.comparison import ComparisonRecord, comparison_record_to_json
from peftbench.records.environment import Outcome
from peftbench.records.file import RecordFile, read_results
from peftbench.report.comparisons.table import comparison_tables, variants_table
from peftbench.report.format.terminal import encodable, render, terminal_width


def predict_comparison(suite: Suite, case: ComparisonCase) -> None:
    """Print the variants, and what the formulas say of their memory where the model has a config."""
    click.echo(f"{suite.name}: {len(case.variants)} variants of {case.model}\n{suite.about}\n")
    click.echo(render(variants_table(case), terminal_width(), indent=""))


def run_comparison_suite(
    suite: Suite, case: ComparisonCase, device: Device, path: Path, timeout_s: float, fresh: bool
) -> bool:
    """Compare, unless the same comparison is in the file; returns whether it was done to its end and written."""
    with RecordFile(path, tell) as file, Stop() as stop:
        click.echo(f"{device.product} → {path}")
        before = None if fresh else finished(read_results(path, tell).comparisons, device).get(case.key)
        if before:
            _show(before)
            click.echo("done before; --fresh measures it again.")
            return True
        try:
            with Progress(f"{suite.name}: {len(case.variants)} variants", patience_s=0.0) as progress:
                record = run_comparison(
                    case, device, suite.name, stop, timeout_s, lambda course: progress(course.progress)
                )
        except Interrupted:
            click.echo("interrupted: a comparison has no result before its end.", err=True)
            raise KeyboardInterrupt from None
        written = _write(file, record)
    _show(record)
    if record.outcome not in FINISHED:
        return False
    click.echo(f"measured in {record.duration_s:.0f} s.   next: peftbench report {path.parent}")
    return written


def _write(file: RecordFile, record: ComparisonRecord) -> bool:
    """What cannot be written goes to stdout, where it is not lost."""
    try:
        file.append(record)
    except OSError as error:
        click.echo(json.dumps(comparison_record_to_json(record), sort_keys=True))
        click.echo(f"Error: {file.path} could not be written: {error.strerror}. The record is above.", err=True)
        return False
    return True


def _show(record: ComparisonRecord) -> None:
    if record.outcome is not Outcome.OK:
        click.echo(f"{record.outcome}: {record.message}", err=True)
    for table in comparison_tables(record):
        click.echo(encodable(render(table, terminal_width(), indent="") + "\n", None))
