"""Measured runs as tables for the terminal and for Markdown: what each took, beside what was predicted."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median

from peftbench.base.units import human_bytes
from peftbench.check.runs.comparison import Comparison
from peftbench.records.environment import Outcome
from peftbench.report.format.sheet import UNKNOWN, Table, one_line

Group = tuple[Comparison, ...]
"""Runs of one suite on one device; never empty."""

MESSAGE = 60
"""Characters of an error that a cell has room for."""


def grouped(comparisons: Iterable[Comparison]) -> list[Group]:
    """Runs of one device and suite belong together, wherever in the files they are."""
    found: dict[tuple[str, str | None, str], list[Comparison]] = {}
    for comparison in comparisons:
        place = comparison.record.environment
        found.setdefault((place.product, place.uuid, comparison.record.suite), []).append(comparison)
    return [tuple(group) for group in found.values()]


def on_card(group: Group) -> bool:
    """Whether the device is a GPU."""
    return group[0].record.environment.device == "cuda"


def group_title(group: Group) -> str:
    """ "methods-1b on NVIDIA L4 · driver 570.1 · torch 2.13.0 · 2026-11-01 to 2026-11-03"."""
    places = [comparison.record.environment for comparison in group]
    drivers, torches = (_each(texts) for texts in ((place.driver for place in places),
                                                   (place.versions.get("torch") for place in places)))  # fmt: skip
    days = sorted(place.started_at[:10] for place in places)
    driver = f"driver {drivers}" if drivers else _threads(places[0].threads)
    torch = f"torch {torches}" if torches else ""
    parts = (f"{group[0].record.suite} on {places[0].product}", driver, torch, _each((days[0], days[-1]), " to "))
    return one_line(" · ".join(part for part in parts if part))


def titles(group: Group) -> tuple[str, ...]:
    """Headings of `run_cells`; a CPU has a process and no device memory."""
    return ("case", "allocated", "predicted", "error", "device" if on_card(group) else "process", "s/step", "outcome")


def run_cells(comparison: Comparison) -> tuple[str, ...]:
    """One run as text, under `titles`. What a run had reached that did not end well is marked as a lower bound."""
    found, error = comparison.record.measurement, comparison.errors.allocated
    least = "" if found.outcome is Outcome.OK else "≥"
    card = comparison.record.environment.device == "cuda"
    return (
        one_line(comparison.record.case.id),
        _size(comparison.measured.allocated_bytes, least),
        _size(comparison.predicted.allocated_bytes),
        UNKNOWN if error is None else f"{error:+.1%}",
        _size(found.device_peak_bytes if card else found.process_peak_bytes, least),
        f"{median(found.step_s):.3f}" if found.step_s else UNKNOWN,
        _outcome(comparison),
    )


def group_table(group: Group, with_reasons: bool = False) -> Table:
    """A row a run; `with_reasons` where there is room to say why some have no prediction."""
    rows = [run_cells(each) for each in group]
    if with_reasons:
        said = [f"; not predicted: {one_line(each.note)}" if each.note else "" for each in group]
        rows = [(*row[:-1], row[-1] + reason) for row, reason in zip(rows, said, strict=True)]
    bad = (place for place, each in enumerate(group) if each.record.measurement.outcome is not Outcome.OK)
    return Table(group_title(group), titles(group), rows, "lrrrrrl", bad=bad)


def _each(texts: Iterable[str | None], between: str = ", ") -> str:
    return between.join(dict.fromkeys(text for text in texts if text))


def _threads(number: int) -> str:
    return f"{number} thread{'s' if number > 1 else ''}"


def _outcome(comparison: Comparison) -> str:
    found = comparison.record.measurement
    if found.outcome is Outcome.OK:
        return f"ok, {found.alloc_retries} retries" if found.alloc_retries else "ok"
    message = one_line(found.message)
    said = f": {message[:MESSAGE]}{'…' if len(message) > MESSAGE else ''}" if message else ""
    return f"{found.outcome}{'' if found.outcome is Outcome.OOM else said}"


def _size(size: int | None, least: str = "") -> str:
    return UNKNOWN if size is None else least + human_bytes(size)
