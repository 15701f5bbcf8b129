"""Price against time of every choice, to point at."""

from __future__ import annotations

from peftbench.decide.choose.ranking import Choice
from peftbench.estimate.time.cost import human_hours, human_usd
from peftbench.report.choose import views
from peftbench.report.choose.own import hours_band, usd_band
from peftbench.report.choose.views import Answer
from peftbench.report.format.figure import SERIES, layout, line, plain, points
from peftbench.report.format.sheet import Figure


def scatter(answer: Answer) -> Figure:
    """Hours and dollars of every choice on logarithmic axes, a colour a method, and the front as a line."""
    methods = list(dict.fromkeys(choice.method for choice in answer.ranking.choices))
    traces = [_of_method(answer, method, number) for number, method in enumerate(methods)]
    best = answer.ranking.front
    hours, dollars = [choice.hours for choice in best], [choice.usd for choice in best]
    front = line("nothing is cheaper and faster", hours, dollars, "dot")
    titles = {"xaxis": "hours", "yaxis": "US dollars"}
    axes = {name: {"type": "log", "title": {"text": text}} for name, text in titles.items()}
    return {"data": [front, *traces], "layout": layout(520, **axes)}


def _of_method(answer: Answer, method: str, number: int) -> Figure:
    chosen = [choice for choice in answer.ranking.choices if choice.method == method]
    hours, dollars = [choice.hours for choice in chosen], [choice.usd for choice in chosen]
    symbols = ["circle" if choice.setup.step.calibrated else "circle-open" for choice in chosen]
    texts = [_described(answer, choice) for choice in chosen]
    colour = SERIES[number % len(SERIES)]
    return points(plain(method), hours, dollars, texts, size=9, color=colour, line={"width": 1}, symbol=symbols)


def _described(answer: Answer, choice: Choice) -> str:
    lines = (
        f"#{answer.ranking.number(choice)} {choice.method} on {views.cards(choice)}",
        f"{views.offered(choice)}, ${choice.usd_per_hour:,.2f} an hour",
        f"{human_hours(choice.hours)} ({hours_band(choice.cost.hours)})",
        f"${human_usd(choice.usd)} ({usd_band(choice.cost.usd)})",
        choice.setup.step.doubt and f"uncalibrated: {choice.setup.step.doubt}",
    )
    return "<br>".join(plain(line) for line in lines if line)
