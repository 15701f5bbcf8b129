"""A ranking of hardware as one self-contained HTML file: price against time to point at, and every choice."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

from peftbench.decide.choose.ranking import Choice
from peftbench.estimate.time.cost import human_hours, human_usd
from peftbench.report.choose import views
from peftbench.report.choose.own import hours_band, usd_band
from peftbench.report.choose.views import Answer
from peftbench.report.format.page import Figure, drawn, html_table, plain, require_plotly, themed_page

_GRID = "rgba(123,135,148,0.25)"
_COLOURS = ("#4e79a7", "#f28e2c", "#59a14f", "#e15759", "#af7aa1", "#76b7b2", "#edc949", "#9c755f")
_LINE = "#7b8794"


def choose_html(answer: Answer) -> str:
    """The page; raises PeftbenchError where plotly is missing."""
    require_plotly("a ranking in HTML")
    title = f"Hardware for {answer.question.model.name}"
    own = views.own_sentences(answer)
    chart = drawn(scatter(answer), "price-and-time")
    body = [
        "<noscript><p>The chart needs JavaScript; the tables do not.</p></noscript>",
        f'<p class="muted">{escape(views.header(answer))}</p>', *(f"<p>{escape(sentence)}</p>" for sentence in own),
        f'<div role="img" aria-label="Price against time of every choice, on logarithmic axes">{chart}</div>',
        *_tables(answer),
        f"<ul>{''.join(f'<li>{escape(note)}</li>' for note in views.notes(answer))}</ul>",
        "<footer>Open circles: the time is uncalibrated. Drag in the chart to zoom, double-click to "
        "see all again, click a method to hide it. This file loads nothing from anywhere.</footer>",
    ]  # fmt: skip
    return themed_page(title, "\n".join(body))


def _tables(answer: Answer) -> Iterable[str]:
    every = views.ranked(answer, len(answer.ranking.choices))
    buy = [views.break_even_table(answer)] if answer.break_evens else []
    for table in (views.picks(answer), views.front(answer), every, *buy):
        yield f"<h2>{escape(table.title)}</h2>\n{html_table(table)}"


def scatter(answer: Answer) -> Figure:
    """Hours and dollars of every choice on logarithmic axes, a colour a method, and the front as a line."""
    methods = list(dict.fromkeys(choice.method for choice in answer.ranking.choices))
    traces = [_of_method(answer, method, number) for number, method in enumerate(methods)]
    front = {
        "type": "scatter", "mode": "lines", "name": "nothing is cheaper and faster", "hoverinfo": "skip",
        "x": [choice.hours for choice in answer.ranking.front], "y": [choice.usd for choice in answer.ranking.front],
        "line": {"color": _LINE, "width": 1, "dash": "dot"},
    }  # fmt: skip
    layout: dict[str, Any] = {
        "height": 520, "margin": {"l": 10, "r": 20, "t": 20, "b": 40}, "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)", "font": {"color": _LINE, "family": "system-ui, sans-serif", "size": 12},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0}, "hovermode": "closest",
        "xaxis": {"type": "log", "gridcolor": _GRID, "automargin": True, "title": {"text": "hours"}},
        "yaxis": {"type": "log", "gridcolor": _GRID, "automargin": True, "title": {"text": "US dollars"}},
    }  # fmt: skip
    return {"data": [front, *traces], "layout": layout}


def _of_method(answer: Answer, method: str, number: int) -> Figure:
    chosen = [choice for choice in answer.ranking.choices if choice.method == method]
    return {
        "type": "scatter", "mode": "markers", "name": plain(method), "x": [choice.hours for choice in chosen],
        "y": [choice.usd for choice in chosen], "text": [_told(answer, choice) for choice in chosen],
        "marker": {
            "size": 9, "color": _COLOURS[number % len(_COLOURS)], "line": {"width": 1},
            "symbol": ["circle" if choice.setup.step.calibrated else "circle-open" for choice in chosen],
        },
        "hovertemplate": "%{text}<extra></extra>",
    }  # fmt: skip


def _told(answer: Answer, choice: Choice) -> str:
    lines = (
        f"#{answer.ranking.number(choice)} {choice.method} on {views.cards(choice)}",
        f"{views.offered(choice)}, ${choice.usd_per_hour:,.2f} an hour",
        f"{human_hours(choice.hours)} ({hours_band(choice.cost.hours)})",
        f"${human_usd(choice.usd)} ({usd_band(choice.cost.usd)})",
        choice.setup.step.doubt and f"uncalibrated: {choice.setup.step.doubt}",
    )
    return "<br>".join(plain(line) for line in lines if line)
