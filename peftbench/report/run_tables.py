"""Runs as tables for the terminal and Markdown: one for each device and suite, with what they ran on above it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from peftbench.check.comparison import Comparison
from peftbench.record import Outcome
from peftbench.report.header import DOT
from peftbench.report.runs import step_median_s
from peftbench.report.table import UNKNOWN, Table
from peftbench.report.terminal import labelled, render, wrap
from peftbench.units import GIB, MIB

LONGEST_MESSAGE = 180
ON_A_CPU = (
    "A CPU has no CUDA context and no caching allocator: only allocated peaks are compared, with the estimate for "
    "an Ampere card. Process is the resident set, the libraries' code included."
)
HEADINGS = ("outcome", "allocated", "predicted", "error %")


class Unit(NamedTuple):
    """What the sizes of a group are written in."""

    name: str
    bytes: int

    def text(self, size_bytes: int | None, decimals: int = 2) -> str:
        """The number alone; the heading names the unit."""
        return UNKNOWN if size_bytes is None else f"{size_bytes / self.bytes:.{decimals}f}"


@dataclass(frozen=True)
class RunGroup:
    """Runs of one suite on one kind of device."""

    comparisons: tuple[Comparison, ...]

    @property
    def on_card(self) -> bool:
        """Whether the device is a GPU."""
        return self.comparisons[0].record.environment.device == "cuda"

    @property
    def title(self) -> str:
        """The suite, the device, the driver and torch, and the days of the runs."""
        places = [comparison.record.environment for comparison in self.comparisons]
        drivers = _each(place.driver for place in places)
        versions = _each(place.versions.get("torch") for place in places)
        days = sorted({place.started_at[:10] for place in places})
        shown = [
            self.comparisons[0].record.suite,
            places[0].product,
            f"driver {drivers}" if drivers else "",
            f"torch {versions}" if versions else "",
            " to ".join(dict.fromkeys((days[0], days[-1]))),
        ]
        return one_line(DOT.join(text for text in shown if text))

    @property
    def unit(self) -> Unit:
        """GiB, or MiB where everything is small."""
        sizes = (size or 0 for each in self.comparisons for size in (*each.measured, *each.predicted))
        return Unit("GiB", GIB) if max(sizes) >= GIB else Unit("MiB", MIB)

    @property
    def notes(self) -> tuple[str, ...]:
        """What went wrong, what could not be predicted, and what a CPU does not show."""
        found = [note for comparison in self.comparisons for note in _notes(comparison)]
        return (*dict.fromkeys(found), *(() if self.on_card else (ON_A_CPU,)))


def grouped(comparisons: Iterable[Comparison]) -> tuple[RunGroup, ...]:
    """By device and suite, in the order in which they come."""
    found: dict[tuple[str, str, str], list[Comparison]] = {}
    for comparison in comparisons:
        place = comparison.record.environment
        found.setdefault((place.device, place.product, comparison.record.suite), []).append(comparison)
    return tuple(RunGroup(tuple(group)) for group in found.values())


def runs_table(group: RunGroup) -> Table:
    """One row a run. Sizes of runs that did not end well are what they had reached."""
    unit = group.unit
    rows = [_row(comparison, unit, group.on_card) for comparison in group.comparisons]
    headings = (f"case, {unit.name}", *HEADINGS, "device" if group.on_card else "process", "s/step")
    return Table(group.title, headings, rows, "llrrrrr")


def runs_terminal(groups: Iterable[RunGroup], width: int) -> str:
    """Every group: its title, its table and its notes."""
    return "\n\n".join(_terminal_block(group, width) for group in groups)


def outcome_of(comparison: Comparison) -> str:
    """How it ended, and in which phase where it did not end well."""
    seen = comparison.record.measurement
    return f"{seen.outcome} in {seen.last_phase}" if seen.last_phase else str(seen.outcome)


def reached(size: str, comparison: Comparison) -> str:
    """A measured size; of a run that did not end well it is at least that."""
    ended_well = comparison.record.measurement.outcome is Outcome.OK
    return size if ended_well or size == UNKNOWN else f"≥{size}"


def error_text(error: float | None) -> str:
    """In percent, with its sign."""
    return UNKNOWN if error is None else f"{100 * error:+.2f}"


def seconds_text(seconds: float | None) -> str:
    """With a sensible number of decimals."""
    return UNKNOWN if seconds is None else f"{seconds:.3f}" if seconds < 10 else f"{seconds:.1f}"


def one_line(text: str) -> str:
    """Without line breaks and control characters, which could rewrite a terminal's screen."""
    return "".join(letter if letter.isprintable() else "·" for letter in " ".join(text.split()))


def short(text: str) -> str:
    """One line of bearable length."""
    line = one_line(text)
    return line if len(line) <= LONGEST_MESSAGE else f"{line[: LONGEST_MESSAGE - 1].rstrip()}…"


def _each(values: Iterable[str | None]) -> str:
    return ", ".join(dict.fromkeys(value for value in values if value))


def _row(comparison: Comparison, unit: Unit, on_card: bool) -> tuple[str, ...]:
    record, seen = comparison.record, comparison.record.measurement
    whole = seen.device_peak_bytes if on_card else seen.process_peak_bytes
    return (
        one_line(record.case.id),
        str(seen.outcome),
        reached(unit.text(seen.allocated_bytes), comparison),
        unit.text(comparison.predicted.allocated_bytes),
        error_text(comparison.errors.allocated),
        reached(unit.text(whole), comparison),
        seconds_text(step_median_s(seen)),
    )


def _notes(comparison: Comparison) -> Iterable[str]:
    """Of one run."""
    seen, case = comparison.record.measurement, one_line(comparison.record.case.id)
    if seen.outcome is not Outcome.OK:
        yield short(f"{case}: {outcome_of(comparison)}" + (f": {seen.message}" if seen.message else ""))
    if seen.alloc_retries:
        yield f"{case}: the allocator flushed its cache {seen.alloc_retries} times to make room."
    if comparison.note:
        yield short(f"{case}: no prediction: {comparison.note}")


def _terminal_block(group: RunGroup, width: int) -> str:
    table = runs_table(group)
    untitled = Table("", table.headings, table.rows, table.alignments)
    lines = [*wrap(table.title, width), render(untitled, width)]
    return "\n".join(lines + [labelled("note", note, width) for note in group.notes])
