"""Measured runs as tables for the terminal and for Markdown: what each took, beside what was predicted."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from statistics import median

from peftbench.check.comparison import Comparison
from peftbench.record import Outcome
from peftbench.report.table import UNKNOWN, Table
from peftbench.units import human_bytes

TITLES = ("case", "allocated", "predicted", "error", "device", "s/step", "outcome")
MESSAGE = 60
"""Characters of an error that a cell has room for."""


def runs_tables(comparisons: Sequence[Comparison]) -> list[Table]:
    """A table for each device and suite, in the order of the records."""
    return [_table(list(group)) for _, group in groupby(comparisons, place_of)]


def place_of(comparison: Comparison) -> tuple[str, str | None, str]:
    """Runs of one device and suite belong together."""
    environment = comparison.record.environment
    return environment.product, environment.uuid, comparison.record.suite


def place_title(comparison: Comparison) -> str:
    """ "methods-1b on NVIDIA L4 · driver 570.1 · torch 2.13.0 · 2026-11-01"."""
    record, environment = comparison.record, comparison.record.environment
    driver = f"driver {environment.driver}" if environment.driver else _threads(environment.threads)
    torch = f"torch {environment.versions['torch']}" if "torch" in environment.versions else ""
    parts = (f"{record.suite} on {environment.product}", driver, torch, environment.started_at[:10])
    return " · ".join(part for part in parts if part)


def _threads(number: int) -> str:
    return f"{number} thread{'s' if number > 1 else ''}"


def _table(group: list[Comparison]) -> Table:
    return Table(place_title(group[0]), TITLES, [run_cells(each) for each in group], "lrrrrrl")


def run_cells(comparison: Comparison) -> tuple[str, ...]:
    """One run as text, under TITLES."""
    found, error = comparison.record.measurement, comparison.errors.allocated
    return (
        comparison.record.case.id,
        _size(comparison.measured.allocated_bytes),
        _size(comparison.predicted.allocated_bytes),
        UNKNOWN if error is None else f"{error:+.1%}",
        _size(found.device_peak_bytes),
        f"{median(found.step_s):.3f}" if found.step_s else UNKNOWN,
        _outcome(comparison),
    )


def _outcome(comparison: Comparison) -> str:
    found = comparison.record.measurement
    if found.outcome is Outcome.OK:
        return f"ok, {found.alloc_retries} retries" if found.alloc_retries else "ok"
    said = f": {found.message[:MESSAGE]}" if found.message and found.outcome is not Outcome.OOM else ""
    return f"{found.outcome}{said}"


def _size(size: int | None) -> str:
    return UNKNOWN if size is None else human_bytes(size)
