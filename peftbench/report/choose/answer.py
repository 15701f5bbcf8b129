"""A ranking of hardware as text: a screen, Markdown, CSV or JSON."""

from __future__ import annotations

from typing import Any

from peftbench.report.choose import views
from peftbench.report.choose.views import Answer
from peftbench.report.format.table import Table

ROOM_FOR_BANDS = 75
"""Columns of a terminal in which the bands stand beside their figures."""


def screen(answer: Answer, most: int, width: int) -> str:
    """For the terminal: what to take, the ranking, the front, one's own cards and the notes."""
    from peftbench.report.format.terminal import labelled, render, wrap

    blocks = ["\n".join(wrap(views.header(answer), width))]
    tables = _tables(answer, most, with_bands=width >= ROOM_FOR_BANDS)
    blocks += [render(table, width, indent="") for table in tables]
    own = [labelled("own", sentence, width) for sentence in views.own_sentences(answer)]
    return "\n\n".join([*blocks, "\n".join([*own, *(labelled("note", note, width) for note in views.notes(answer))])])


def document(answer: Answer, most: int) -> str:
    """The same in Markdown."""
    from peftbench.report.format.markdown import render

    tables = [render(table) for table in _tables(answer, most)]
    lines = [f"* {_escaped(sentence)}" for sentence in (*views.own_sentences(answer), *views.notes(answer))]
    return "\n\n".join([f"**{views.header(answer)}**", *tables, "\n".join(lines)])


def _escaped(sentence: str) -> str:
    """A note that begins with a star is no list of its own."""
    return f"\\{sentence}" if sentence.startswith("*") else sentence


def _tables(answer: Answer, most: int, with_bands: bool = True) -> list[Table]:
    tables = [views.picks(answer, with_bands), views.front(answer), views.ranked(answer, most)]
    return [*tables, *([views.break_even_table(answer)] if answer.break_evens else [])]


def rows(answer: Answer) -> str:
    """Every choice as CSV."""
    from peftbench.report.format.csv import render_rows

    return render_rows(views.COLUMNS, (views.row_data(answer, choice) for choice in answer.ranking.choices))


def data(answer: Answer) -> dict[str, Any]:
    """Everything for a program; choices are named by their number."""
    question, ranking = answer.question, answer.ranking
    return {
        "model": question.model.name, "tokens": question.tokens._asdict(), "tokens_from": answer.how,
        "sequence_length": question.recipes[0].sequence_length, "batch_size": question.sequences,
        "framework": question.framework, "setup_hours": question.setup_hours, "budget_usd": question.budget_usd,
        "deadline_hours": question.deadline_hours, "cheapest": ranking.number(ranking.cheapest),
        "cheapest_measured": ranking.number(ranking.cheapest_measured) if ranking.cheapest_measured else None,
        "fastest": ranking.number(ranking.fastest), "best": ranking.number(ranking.best),
        "front": [ranking.number(choice) for choice in ranking.front],
        "choices": [views.row_data(answer, choice) for choice in ranking.choices],
        "own": views.own_sentences(answer),
        "rent_or_buy": [
            {"gpu": each.gpu, "purchase_usd": each.purchase_usd, "rent_usd_per_hour": each.rent.usd_per_gpu_hour,
             "provider": each.rent.provider, "power_usd_per_hour": each.power_usd_per_hour,
             "break_even_hours": each.hours}
            for each in answer.break_evens
        ],
        "notes": views.notes(answer),
    }  # fmt: skip
