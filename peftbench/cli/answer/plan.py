"""From the plans to the text of the answer: a screen, or JSON, CSV or Markdown."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from peftbench.decide.plan.plan import Plan
    from peftbench.report.format.terminal import Style


def answer_of(plans: list[Plan], notes: list[str], given: dict[str, Any], ctx: click.Context) -> str:
    """Write the plans in the format that was asked for."""
    if given["format"] == "json":
        from json import dumps

        from peftbench.report.plan.document import plan_document

        return dumps(plan_document(plans[0].model, plans), indent=2)
    if given["format"] == "csv":
        from peftbench.report.format.csv import render as render_csv

        return render_csv(plans)
    if given["format"] == "markdown":
        from peftbench.report.format.markdown import plans_document

        return plans_document(plans)
    return _screen(plans, notes, given, ctx)


def _screen(plans: list[Plan], notes: list[str], given: dict[str, Any], ctx: click.Context) -> str:
    from peftbench.report.plan.screens import many_cards

    if given["explain"]:
        from peftbench.report.plan.explain import explain

        text = explain(plans, given["explain"], _style())
    elif len({id(p.gpu) for p in plans}) > 1:
        text = many_cards(plans, notes, _style())
    else:
        text = _one_card(plans, notes, given, ctx)
    return _encodable(text)


def _one_card(plans: list[Plan], notes: list[str], given: dict[str, Any], ctx: click.Context) -> str:
    """Look closer at the best plan: what would make it fit, or how much longer its sequences may be."""
    from peftbench.decide.verdict import Fit
    from peftbench.report.plan.screens import one_card
    from peftbench.report.plan.views import best

    chosen = best(plans)
    next_step = command = ""
    if chosen.verdict and chosen.verdict.fit is Fit.FITS:
        next_step = _next_step(chosen) if len(plans) == 1 else _next_question(chosen)
    elif chosen.gpu:
        chosen = _with_changes(chosen)
        command = _command(chosen, given, ctx)
    return one_card(plans, chosen, notes, next_step, command, _style())


def _with_changes(chosen: Plan) -> Plan:
    """The comparison leaves the changes out: finding them for every method would take long."""
    from peftbench.decide.plan.advice import suggest

    if chosen.changes or not chosen.variable:
        return chosen
    return chosen._replace(changes=suggest(*chosen.variable))


def _next_step(chosen: Plan) -> str:
    from peftbench.decide.plan.advice import largest

    if not chosen.variable:
        return ""
    longest = largest(*chosen.variable, "sequence_length")
    if longest > chosen.variable[1].sequence_length:
        whole = ", all positions of the model" if longest == chosen.model.max_position_embeddings else ""
        return f"{chosen.method} fits up to --sequence-length {longest}{whole}. Estimated, not measured."
    return ""


def _next_question(chosen: Plan) -> str:
    """A comparison has to be instant, so it names the question that takes a search instead of answering it."""
    if chosen.task == "inference":
        return ""
    return f"--method {chosen.method} --max sequence-length finds the longest sequence that fits."


def _command(chosen: Plan, given: dict[str, Any], ctx: click.Context) -> str:
    """What to type for the nearest change that fits: the options as given, with those of the change."""
    from peftbench.cli.ask.command_line import retyped

    fitting = [change for change in chosen.changes if change.fit.value != "does_not_fit"]
    if not fitting:
        return ""
    nearest = min(fitting, key=lambda change: change.fit.rank)
    return retyped(ctx.command.params, {**given, "method": (chosen.method,)}, nearest.arguments)


def _style() -> Style:
    from peftbench.report.format.terminal import Style, terminal_width, wants_colour

    return Style(terminal_width(), wants_colour(sys.stdout))


def _encodable(text: str) -> str:
    from peftbench.report.format.terminal import encodable

    return encodable(text, getattr(sys.stdout, "encoding", None))


def largest_of(plans: list[Plan], given: dict[str, Any]) -> str:
    """Answer --max: the number alone for one card and method, else a table."""
    from peftbench.decide.plan.advice import largest
    from peftbench.report.plan.screens import maxima

    field = given["max"].replace("-", "_")
    found = {
        (plan.variable[2].name, plan.method): largest(*plan.variable, field) for plan in plans if plan.variable
    }
    return _encodable(maxima(found, given["max"], plans, _style()))
