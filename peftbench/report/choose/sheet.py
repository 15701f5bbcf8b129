"""A ranking of hardware as a sheet: what to take, the ranking, the front, one's own cards, and every choice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from peftbench.decide.choose.ranking import Choice
from peftbench.estimate.time.cost import human_hours, human_usd
from peftbench.report.choose import views
from peftbench.report.choose.own import hours_band, usd_band
from peftbench.report.choose.views import Answer
from peftbench.report.format.figure import INK, SERIES, figure, line, plain, points
from peftbench.report.format.html import Section
from peftbench.report.format.sheet import Figure, Note, Page, Row, Sheet, Table
from peftbench.report.format.terminal import Style, page
from peftbench.report.plan.screens import headline


def choose_sheet(answer: Answer, most: int) -> Sheet:
    """The page shows the cheapest, as many as wanted; the other formats have every choice."""
    return Sheet(
        lambda: _page(answer, most), lambda: _document(answer), lambda: _rows(answer),
        lambda style: _screen(answer, most, style), lambda: _whole(answer),
    )  # fmt: skip


def _screen(answer: Answer, most: int, style: Style) -> str:
    """The page below its first line."""
    return f"{headline(views.first_line(answer), style)}\n\n{page(_page(answer, most), style.width)}"


def _page(answer: Answer, most: int) -> Page:
    own = (Note(sentence, "own") for sentence in views.own_sentences(answer))
    notes = [*own, *map(Note, views.notes(answer))]
    return Page(_tables(answer, most), notes, views.first_line(answer), [views.header(answer)])


def _tables(answer: Answer, most: int) -> list[Table]:
    tables = [views.picks(answer), views.front(answer), views.ranked(answer, most)]
    return [*tables, *([views.break_even_table(answer)] if answer.break_evens else [])]


def _whole(answer: Answer) -> Page:
    """Price against time to point at, and every choice; what one's own cards can do is above them all."""
    chart = Section(
        figure=scatter(answer), id="price-and-time",
        label="Price against time of every choice, on logarithmic axes",
    )  # fmt: skip
    short, tables = _page(answer, 0), _tables(answer, len(answer.ranking.choices))
    return short._replace(
        lead=[*short.lead, *views.own_sentences(answer)],
        notes=[note for note in short.notes if note.label != "own"],
        sections=[chart, *(Section(table.title, table=table) for table in tables)],
        footer="Open circles: the time is uncalibrated.",
    )


def _rows(answer: Answer) -> tuple[Sequence[str], Iterable[Row]]:
    rows = [views.row_data(answer, choice) for choice in answer.ranking.choices]
    return tuple(rows[0]), rows


def _document(answer: Answer) -> dict[str, Any]:
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
        "choices": _rows(answer)[1],
        "own": views.own_sentences(answer),
        "rent_or_buy": [
            {"gpu": each.gpu, "purchase_usd": each.purchase_usd, "rent_usd_per_hour": each.rent.usd_per_gpu_hour,
             "provider": each.rent.provider, "power_usd_per_hour": each.power_usd_per_hour,
             "break_even_hours": each.hours}
            for each in answer.break_evens
        ],
        "notes": views.notes(answer),
    }  # fmt: skip


# ── the chart ───────────────────────────────────────────────────────────────────────────────────────────────────────


def scatter(answer: Answer) -> Figure:
    """Hours and dollars of every choice on logarithmic axes, a colour a method, and the front as a line."""
    methods = list(dict.fromkeys(choice.method for choice in answer.ranking.choices))
    traces = [_of_method(answer, method, number) for number, method in enumerate(methods)]
    style = {"color": INK, "width": 1, "dash": "dot"}
    front = line("nothing is cheaper and faster", *_hours_and_usd(answer.ranking.front), style)
    titles = {"xaxis": "hours", "yaxis": "US dollars"}
    axes = {name: {"type": "log", "title": {"text": text}} for name, text in titles.items()}
    return figure([front, *traces], 520, **axes)


def _hours_and_usd(choices: Sequence[Choice]) -> tuple[list[float], list[float]]:
    return [choice.hours for choice in choices], [choice.usd for choice in choices]


def _of_method(answer: Answer, method: str, number: int) -> Figure:
    chosen = [choice for choice in answer.ranking.choices if choice.method == method]
    symbols = ["circle" if choice.setup.step.calibrated else "circle-open" for choice in chosen]
    marker = {"size": 9, "color": SERIES[number % len(SERIES)], "line": {"width": 1}, "symbol": symbols}
    texts = [_described(answer, choice) for choice in chosen]
    return points(plain(method), *_hours_and_usd(chosen), text=texts, marker=marker)


def _described(answer: Answer, choice: Choice) -> str:
    lines = (
        f"#{answer.ranking.number(choice)} {choice.method} on {views.cards(choice)}",
        f"{views.offered(choice)}, ${choice.usd_per_hour:,.2f} an hour",
        f"{human_hours(choice.hours)} ({hours_band(choice.cost.hours)})",
        f"${human_usd(choice.usd)} ({usd_band(choice.cost.usd)})",
        choice.setup.step.doubt and f"uncalibrated: {choice.setup.step.doubt}",
    )
    return "<br>".join(plain(line) for line in lines if line)
