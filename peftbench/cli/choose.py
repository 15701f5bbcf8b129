"""`peftbench choose`: which cards to rent, buy or use for a training run, how long it takes and what it costs."""

from __future__ import annotations

import sys
from datetime import date
from typing import Any

import click

from peftbench.base.errors import SpecError
from peftbench.base.screen import say
from peftbench.catalog.models import find_config
from peftbench.cli.ask.choose_options import SECTIONS
from peftbench.cli.ask.choose_question import dataset_of, own_offers, question_of
from peftbench.cli.ask.command_line import broken
from peftbench.cli.ask.format_option import show
from peftbench.cli.ask.options import SectionedCommand
from peftbench.decide.choose.own import break_evens, own_answer
from peftbench.decide.choose.ranking import NothingFits, Question
from peftbench.decide.choose.ranking import choose as rank
from peftbench.decide.plan.plan import make_plan
from peftbench.inputs.model.spec import ModelSpec
from peftbench.report.choose.own import Typed, own_sentences, plan_words
from peftbench.report.choose.sheet import choose_sheet
from peftbench.report.choose.views import Answer
from peftbench.report.format.terminal import Style, terminal_width, wants_colour
from peftbench.report.plan.screens import one_card


@click.command("choose", cls=SectionedCommand, sections=SECTIONS)
def choose(**given: Any) -> None:
    """Rank what can be rented for a training run, or is owned, by price and time: only what fits, with its band.

    \b
      peftbench choose --model 8b --tokens 50M
      peftbench choose --model 8b --tokens 50M --method qlora --own rtx4090
      peftbench choose --model 8b --dataset train.jsonl --budget 40 --deadline 12h
      peftbench choose --model 70b --tokens 1B --method full --no-spot
      peftbench choose --model 8b --tokens 50M --method lora --r 64
      peftbench choose --model 8b --tokens 50M --expand 1
    """
    if given["expand"] and given["format"] != "terminal":
        raise SpecError("--expand is only written for the terminal.", "Leave out --format, or ask `peftbench plan`.")
    named = find_config(given["model"])
    model = named.spec
    dataset = dataset_of(given, (named.name, given["model"], named.source))
    answer = _answer(question_of(model, dataset, given), dataset.how, named.notes, given)
    if given["expand"]:
        say(_expanded(answer, model, given))
    else:
        show(choose_sheet(answer, given["top"]), given["format"])


def _answer(question: Question, how: str, naming: tuple[str, ...], given: dict[str, Any]) -> Answer:
    typed = Typed(given["model"], given["calibration"], given["adapter_config"])
    owned = own_offers(given)
    try:
        ranking = rank(question)
    except NothingFits as error:
        lines = (line for own in owned for line in own_sentences(own_answer(question, own, ()), question, typed))
        raise SpecError(error.what, "\n  ".join((*lines, error.hint))) from None
    answers = tuple(own_answer(question, own, ranking.choices) for own in owned)
    bought = break_evens(ranking.choices, given["power_price"], given["purchase_price"])
    power = given["power_price"]
    return Answer(question, typed, ranking, how, answers, tuple(bought), power, date.today(), naming)


def _expanded(answer: Answer, model: ModelSpec, given: dict[str, Any]) -> str:
    """The plan of one row, and the command that makes it."""
    choices = answer.ranking.choices
    if given["expand"] > len(choices):
        raise SpecError(f"the ranking has no row {given['expand']}.", f"It has rows 1 to {len(choices)}.")
    chosen = choices[given["expand"] - 1]
    setup = chosen.setup
    plan = make_plan(model, setup.training, setup.shape.gpu, framework=answer.question.framework)
    words = plan_words(setup.training, setup.shape.gpu, answer.question, answer.typed)
    return one_card([plan], plan, [], "", broken(words), Style(terminal_width(), wants_colour(sys.stdout)))
