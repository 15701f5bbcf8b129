"""Comparisons of variants as sections of the page of runs: tables, and charts with intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from peftbench.records.comparison import ComparisonRecord
from peftbench.records.environment import Outcome
from peftbench.report.comparisons.charts import comparison_figures
from peftbench.report.comparisons.table import comparison_tables, comparison_title
from peftbench.report.format.sheet import Section, one_line

EXPLAINED = (
    "Every variant met the same blocks of text, or ran once in every round; intervals are of the differences within "
    "blocks or rounds. KL is measured against the variant named beside it. Ratios are of the processor's time where "
    "that is known. Beyond 16-bit: more than what casting the weights to 16 bit does."
)


def comparison_sections(records: Sequence[ComparisonRecord]) -> Iterator[Section]:
    """A heading for all, and those of each record."""
    if records:
        yield Section("Variants of one model", text=EXPLAINED)
    for number, record in enumerate(records):
        failure = "" if record.outcome is Outcome.OK else one_line(f"{record.outcome}: {record.message}")
        yield Section(comparison_title(record), failure=failure, points=_facts(record))
        for place, table in enumerate(comparison_tables(record)):
            yield Section(table.title if place else "", level=3, table=table)
        for place, (title, figure) in enumerate(comparison_figures(record)):
            yield Section(title, level=3, figure=figure, id=f"compared-{number}-{place}")


def _facts(record: ComparisonRecord) -> list[str]:
    """What is to be known of the model and the text."""
    facts = {name: value for name, value in record.facts.items() if isinstance(value, (str, int))}
    told = [f"{name.replace('_', ' ')}: {value}" for name, value in facts.items()]
    notes = [note for result in record.results for note in result.notes]
    return [one_line(text) for text in dict.fromkeys((*told, *notes))]
