"""How `run` measures a suite of kind quality or latency: one child compares all variants, one record comes of it."""

from __future__ import annotations

import json
from pathlib import Path

from peftbench.base.errors import Interrupted
from peftbench.base.screen import fail, say, tell
from peftbench.base.visible import one_line, shown, shown_lines
from peftbench.cli.progress import Progress
from peftbench.inputs.comparison import ComparisonCase
from peftbench.inputs.suite import Suite
from peftbench.measure.child_process import Stop
from peftbench.measure.device.open import Device
from peftbench.measure.runner import FINISHED, finished, run_comparison
from peftbench.records.comparison import ComparisonRecord, comparison_record_to_json
from peftbench.records.environment import Outcome
from peftbench.records.file import RecordFile, read_results
from peftbench.report.comparisons.table import comparison_tables, variants_table
from peftbench.report.format.terminal import render, terminal_width


def predict_comparison(suite: Suite, case: ComparisonCase) -> None:
    """Print the variants, and what the formulas say of their memory where the model has a config."""
    say(f"{shown(suite.name)}: {len(case.variants)} variants of {one_line(case.model)}\n{shown_lines(suite.about)}\n")
    say(render(variants_table(case), terminal_width(), indent=""))


def run_comparison_suite(
    suite: Suite, case: ComparisonCase, device: Device, path: Path, timeout_s: float, fresh: bool
) -> bool:
    """Compare, unless the same comparison is in the file; returns whether it was done to its end and written."""
    with RecordFile(path, tell) as file, Stop() as stop:
        say(one_line(f"{device.product} → {path}"))
        before = None if fresh else finished(read_results(path, tell).comparisons, device).get(case.key)
        if before:
            _show(before)
            say("done before; --fresh measures it again.")
            return True
        try:
            with Progress(f"{suite.name}: {len(case.variants)} variants", patience_s=0.0) as progress:
                record = run_comparison(
                    case, device, suite.name, stop, timeout_s, lambda course: progress(course.progress)
                )
        except Interrupted:
            tell("interrupted: a comparison has no result before its end.", label="")
            raise
        written = _write(file, record)
    _show(record)
    if record.outcome not in FINISHED:
        return False
    say(f"measured in {record.duration_s:.0f} s.   next: peftbench report {path.parent}")
    return written


def _write(file: RecordFile, record: ComparisonRecord) -> bool:
    """What cannot be written goes to stdout, where it is not lost."""
    try:
        file.append(record)
    except OSError as error:
        say(json.dumps(comparison_record_to_json(record), sort_keys=True))
        fail(f"Error: {file.path} could not be written: {error.strerror}. The record is above.")
        return False
    return True


def _show(record: ComparisonRecord) -> None:
    if record.outcome is not Outcome.OK:
        tell(f"{record.outcome}: {one_line(record.message)}", label="")
    for table in comparison_tables(record):
        say(render(table, terminal_width(), indent="") + "\n")
