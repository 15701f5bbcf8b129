"""`peftbench choose`: which cards to rent, buy or use for a training run, how long it takes and what it costs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from peftbench.cli.choose_options import SECTIONS
from peftbench.cli.options import SectionedCommand
from peftbench.errors import SpecError

if TYPE_CHECKING:
    from peftbench.decide.choose import Question
    from peftbench.report.choose_views import Answer
    from peftbench.spec.model import ModelSpec


class ChooseCommand(SectionedCommand):
    """`choose` with its own sections."""

    sections = SECTIONS


@click.command(
    "choose",
    cls=ChooseCommand,
    params=[option for options in SECTIONS.values() for option in options],
    short_help="Rank cards and offers for a training run by price and time.",
)
def choose(**given: Any) -> None:
    """Rank what can be rented for a training run, or is owned, by price and time: only what fits, with its band.

    \b
      peftbench choose --model 8b --tokens 50M
      peftbench choose --model 8b --tokens 50M --method qlora --own rtx4090
      peftbench choose --model 8b --dataset train.jsonl --epochs 3 --budget 40 --deadline 12h
      peftbench choose --model 70b --tokens 1B --method full --no-spot
      peftbench choose --model 8b --tokens 50M --expand 1
    """
    from peftbench.catalog.models import find_config
    from peftbench.cli.choose_question import dataset_of, question_of

    if given["format"] == "html":
        from peftbench.report.page import require_plotly

        require_plotly("a ranking in HTML")
    named = find_config(given["model"])
    model = named.spec
    dataset = dataset_of(given, (named.name, given["model"], named.source))
    answer = _answer(question_of(model, dataset, given), dataset.how, given)
    text = _expanded(answer, model, given) if given["expand"] else _written(answer, given)
    from peftbench.report.terminal import encodable

    click.echo(encodable(text, getattr(sys.stdout, "encoding", None)))


def _answer(question: Question, how: str, given: dict[str, Any]) -> Answer:
    from datetime import date

    from peftbench.cli.choose_question import own_offers
    from peftbench.decide.choose import choose as rank
    from peftbench.report.choose_views import Answer

    ranking = rank(question)
    owned: tuple[Any, ...] = ()
    if given["own"]:
        from peftbench.decide.choose_own import own_answer

        owned = tuple(own_answer(question, own, ranking.choices) for own in own_offers(given))
    from peftbench.decide.choose_own import break_evens

    bought = break_evens(ranking.choices, given["power_price"], given["purchase_price"])
    return Answer(question, given["model"], ranking, how, owned, tuple(bought), given["power_price"], date.today())


def _written(answer: Answer, given: dict[str, Any]) -> str:
    from peftbench.report import choose as report

    if given["format"] == "json":
        from json import dumps

        return dumps(report.data(answer), indent=2)
    if given["format"] == "csv":
        return report.rows(answer)
    if given["format"] == "markdown":
        return report.document(answer, given["top"])
    if given["format"] == "html":
        from peftbench.report.choose_html import choose_html

        return choose_html(answer)
    from peftbench.report.terminal import terminal_width

    return report.screen(answer, given["top"], terminal_width())


def _expanded(answer: Answer, model: ModelSpec, given: dict[str, Any]) -> str:
    """The plan of one row, and the command that makes it."""
    from peftbench.decide.choose_command import plan_command
    from peftbench.decide.plan import make_plan
    from peftbench.report.screens import Style, one_card
    from peftbench.report.terminal import terminal_width, wants_colour

    choices = answer.ranking.choices
    if given["expand"] > len(choices):
        raise SpecError(f"the ranking has no row {given['expand']}.", f"It has rows 1 to {len(choices)}.")
    chosen = choices[given["expand"] - 1]
    setup = chosen.setup
    plan = make_plan(model, setup.training, setup.shape.gpu)
    command = plan_command(given["model"], model, setup.training, setup.shape.gpu)
    return one_card([plan], plan, [], "", f"  {command}", Style(terminal_width(), wants_colour(sys.stdout)))
