"""Markdown: the tables of the terminal for an issue, a pull request or a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftbench.report.format.table import Table

if TYPE_CHECKING:
    from peftbench.decide.plan.plan import Plan


def plans_document(plans: list[Plan]) -> str:
    """The assumptions, the comparison on each card in GiB, and the notes; over many cards those of the usual ones."""
    from peftbench.report.plan import views
    from peftbench.report.plan.header import DOT, assumptions, card_title, model_title
    from peftbench.report.plan.time import time_notes

    cards = list(dict.fromkeys(plan.gpu for plan in plans))
    several = len(cards) > 1
    usual, lowered = views.usual(plans) if several else (plans, [])
    blocks = [f"**{_cell(model_title(plans[0].model))}**", _cell(DOT.join(assumptions(usual)))]
    if several:
        blocks.append(render(views.cards(plans)))
    else:
        blocks += [_cell(card_title(cards[0])), render(views.comparison(plans)), *_times(plans)]
    of_time = [] if several else time_notes(plans)
    notes = dict.fromkeys([*(note for plan in usual for note in plan.notes), *_published(usual), *of_time, *lowered])
    return "\n\n".join([*blocks, *(f"* {_cell(note)}" for note in notes)])


def _times(plans: list[Plan]) -> list[str]:
    """The expected times of inference or of a training step, on one card."""
    from peftbench.report.plan.effects import latency_table
    from peftbench.report.plan.time import time_table

    times = latency_table(plans) if plans[0].effects else time_table(plans)
    return [render(times)] if times else []


def _published(plans: list[Plan]) -> list[str]:
    from peftbench.report.plan.effects import published_notes

    return published_notes(plans) if plans[0].effects else []


def render(table: Table) -> str:
    """Write a table in GitHub's Markdown, its title in bold above it; cells cannot break the table."""
    from tabulate import tabulate

    rows = [[_cell(cell) for cell in row] for row in table.rows]
    headings = [_cell(heading) for heading in table.headings]
    align = ["right" if letter == "r" else "left" for letter in table.alignments]
    text: str = tabulate(rows, headings, tablefmt="github", colalign=align if rows else None, disable_numparse=True)
    return f"**{_cell(table.title)}**\n\n{text}" if table.title else text


def _cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
