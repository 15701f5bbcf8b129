"""The sections of a page of measured runs: tables, and charts that work without a network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from peftbench.check.runs.comparison import Comparison
from peftbench.report.format.sheet import Section
from peftbench.report.runs.charts import PARTS, parts_figure, parts_of, scatter_figure, step_figure
from peftbench.report.runs.course import time_figures
from peftbench.report.runs.table import Group, group_table, grouped, on_card

EXPLAINED = (
    "Measured by peftbench. Predictions were made afresh from each run's recipe: allocated is torch's peak of tensors, "
    "device is what the driver sees beyond what was there before, process is the resident set with the libraries' "
    "code. What a run had reached that did not end well is marked ≥."
)


def run_sections(comparisons: Sequence[Comparison]) -> Iterator[Section]:
    """What was predicted beside what was measured, every suite on every device, and memory over time."""
    if not comparisons:
        return
    yield Section(text=EXPLAINED)
    label = "Allocated peaks, predicted against measured, on logarithmic axes"
    yield Section("Predicted against measured", figure=scatter_figure(comparisons), id="scatter", label=label)
    for number, group in enumerate(grouped(comparisons)):
        yield from _group(group, number)
    figures = time_figures(comparisons)
    if figures:
        label = "Memory of the chosen run over time"
        first = next(iter(figures.values()))
        yield Section("Memory over time", figure=first, id="over-time", label=label, choices=figures)


def _group(group: Group, number: int) -> Iterator[Section]:
    """A device and suite: table, parts and step time."""
    table = group_table(group, with_reasons=True)
    yield Section(table.title, table=table)
    yield Section(
        "What is predicted at the peak, and what was measured", level=3, legend=_legend(group),
        figure=parts_figure(group), id=f"parts-{number}", kind="chart card" if on_card(group) else "chart",
        label=f"Predicted parts and measured peaks: {table.title}",
    )  # fmt: skip
    steps = step_figure(group)
    if steps:
        label = f"Time of a step: {table.title}"
        yield Section("Time of a step, or of a generation", level=3, figure=steps, id=f"steps-{number}", label=label)


def _legend(group: Group) -> list[tuple[str, str]]:
    """Outside of the chart, where it has room at any width."""
    measured = "◆ measured, device" if on_card(group) else "◆ measured, tensors"
    return [*((PARTS[part], part.value) for part in parts_of(group)), ("", measured)]
