"""Comparisons of variants as sections of the page of runs: tables, and charts with intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from peftbench.records.comparison import ComparisonRecord
from peftbench.records.environment import Outcome
from peftbench.report.comparisons.charts import comparison_figures
from peftbench.report.comparisons.table import comparison_tables, comparison_title
from peftbench.report.format.page import drawn, html_table
from peftbench.report.runs.table import one_line

EXPLAINED = (
    "Every variant met the same blocks of text, or ran once in every round; intervals are of the differences within "
    "blocks or rounds. KL is measured against the variant named beside it. Ratios are of the processor's time where "
    "that is known. Beyond 16-bit: more than what casting the weights to 16 bit does."
)


def comparison_sections(records: Sequence[ComparisonRecord], with_library: bool) -> Iterator[str]:
    """Pieces of HTML; the first chart brings plotly's code along where `with_library` says so."""
    if records:
        yield f'<h2 id="comparisons">Variants of one model</h2>\n<p class="muted">{EXPLAINED}</p>'
    for number, record in enumerate(records):
        yield f"<h2>{escape(comparison_title(record))}</h2>"
        if record.outcome is not Outcome.OK:
            yield f'<p class="bad">{escape(one_line(f"{record.outcome}: {record.message}"))}</p>'
        yield from _facts(record)
        for place, table in enumerate(comparison_tables(record)):
            yield (f"<h3>{escape(table.title)}</h3>" if place else "") + html_table(table)
        for place, (title, figure) in enumerate(comparison_figures(record)):
            chart = drawn(figure, f"compared-{number}-{place}", with_library)
            with_library = False
            yield f'<h3>{escape(title)}</h3>\n<div class="chart" role="img" aria-label="{escape(title)}">{chart}</div>'


def _facts(record: ComparisonRecord) -> Iterator[str]:
    """What is to be known of the model and the text."""
    facts = {name: value for name, value in record.facts.items() if isinstance(value, (str, int))}
    told = [f"{name.replace('_', ' ')}: {value}" for name, value in facts.items()]
    notes = [note for result in record.results for note in result.notes]
    lines = "".join(f"<li>{escape(one_line(text))}</li>" for text in dict.fromkeys((*told, *notes)))
    if lines:
        yield f'<ul class="muted">{lines}</ul>'
