"""The answer of `plan` as a sheet: a document, a flat row a plan, a page; the terminal has screens of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from peftbench.report.format.sheet import Note, Page, Sheet

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from peftbench.decide.plan.advice import Change
    from peftbench.decide.plan.plan import Plan
    from peftbench.report.format.sheet import Row
    from peftbench.report.format.terminal import Style


def plan_sheet(
    plans: list[Plan], screen: Callable[[Style], str] | None = None,
    command: Callable[[Plan, Change], str] | None = None,
) -> Sheet:  # fmt: skip
    """Plans of one model; `screen` is what the terminal shows of them, `command` what leads to a change."""
    return Sheet(lambda: _page(plans), lambda: _document(plans, command), lambda: _rows(plans), screen)


def _document(plans: list[Plan], command: Callable[[Plan, Change], str] | None) -> object:
    from peftbench.report.plan.document import plan_document

    return plan_document(plans[0].model, plans, command)


def _rows(plans: list[Plan]) -> tuple[Sequence[str], Iterable[Row]]:
    from peftbench.report.plan.rows import COLUMNS, plan_row

    return COLUMNS, map(plan_row, plans)


def _page(plans: list[Plan]) -> Page:
    """The assumptions, the comparison on each card in GiB, and the notes; over many cards those of the usual ones."""
    from peftbench.report.plan import views
    from peftbench.report.plan.header import DOT, assumptions, card_title, model_title
    from peftbench.report.plan.screens import promise
    from peftbench.report.plan.time import published_notes, time_notes, time_table

    cards = list(dict.fromkeys(plan.gpu for plan in plans))
    several = len(cards) > 1
    usual, lowered = views.usual(plans) if several else (plans, [])
    tables = [views.cards(plans)] if several else [views.comparison(plans), time_table(plans)]
    notes = [note for plan in usual for note in (*promise(plan), *plan.notes)]
    notes += published_notes(usual)
    notes += lowered if several else time_notes(plans)
    first, *others = views.first_cards(plans) if several else [views.best(plans).summary]
    lead = [*others, model_title(plans[0].model), DOT.join(assumptions(usual))]
    lead += [] if several else [card_title(cards[0])]
    shown = [Note(note) for note in dict.fromkeys(notes)]
    return Page([table for table in tables if table], shown, first, lead)
