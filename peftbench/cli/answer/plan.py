"""From the plans to the answer: the sheet, and the screen that a terminal shows of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from peftbench.report.plan.sheet import plan_sheet

if TYPE_CHECKING:
    from peftbench.decide.plan.advice import Change
    from peftbench.decide.plan.plan import Plan
    from peftbench.report.format.sheet import Sheet
    from peftbench.report.format.terminal import Style
    from peftbench.report.plan.maxima import Maximum


def sheet_of(plans: list[Plan], notes: list[str], given: dict[str, Any], ctx: click.Context) -> Sheet:
    """The plans, and what of them was asked for."""

    def command(plan: Plan, change: Change) -> str:
        from peftbench.cli.ask.command_line import one_line

        return one_line(_words(plan, change, {**given, "format": None}, ctx))

    return plan_sheet(plans, lambda style: _screen(plans, notes, given, ctx, style), command)


def _screen(plans: list[Plan], notes: list[str], given: dict[str, Any], ctx: click.Context, style: Style) -> str:
    from peftbench.report.plan.screens import many_cards

    if given["explain"]:
        from peftbench.report.plan.explain import explain

        return explain(plans, given["explain"], style)
    if len({id(p.gpu) for p in plans}) > 1:
        return many_cards(plans, notes, style)
    return _one_card(plans, notes, given, ctx, style)


def _one_card(plans: list[Plan], notes: list[str], given: dict[str, Any], ctx: click.Context, style: Style) -> str:
    """Look closer at the best plan: what would make it fit, or how much longer its sequences may be."""
    from peftbench.cli.ask.plan_question import asked_of
    from peftbench.decide.plan.plan import advised
    from peftbench.decide.verdict import Fit
    from peftbench.report.plan.screens import one_card
    from peftbench.report.plan.views import best

    chosen = best(plans)
    next_step = command = ""
    if chosen.final_verdict and chosen.final_verdict.fit is Fit.FITS:
        if len(plans) == 1:
            next_step = _next_step(chosen)
        elif chosen.variable:  # a comparison has to be instant: it names the question that takes a search
            next_step = f"--method {chosen.method} --max sequence-length finds the longest sequence that fits."
    elif chosen.gpu:
        if chosen.variable and not chosen.changes:  # a comparison leaves them out: finding them takes long
            chosen = advised(chosen, asked_of(chosen.variable[0], chosen.method, given))
        command = _command(chosen, given, ctx)
    return one_card(plans, chosen, notes, next_step, command, style)


def _next_step(chosen: Plan) -> str:
    from peftbench.decide.plan.largest import largest
    from peftbench.estimate.peft_forward.virtual_tokens import virtual_tokens

    if not chosen.variable:
        return ""
    longest = largest(*chosen.variable, "sequence_length")
    positions = chosen.model.max_position_embeddings - virtual_tokens(chosen.recipe.adapter)
    if longest > chosen.variable[1].sequence_length:
        whole = ", all positions of the model" if longest == positions else ""
        return f"{chosen.method} fits up to --sequence-length {longest}{whole}. Estimated, not measured."
    return ""


def _command(chosen: Plan, given: dict[str, Any], ctx: click.Context) -> str:
    """What to type for the nearest change that fits."""
    from peftbench.cli.ask.command_line import broken

    fitting = [change for change in chosen.changes if change.fit.is_likely and not change.doubted]
    if not fitting:
        return ""
    nearest = min(fitting, key=lambda change: change.fit.rank)
    return broken(_words(chosen, nearest, given, ctx))


def _words(plan: Plan, change: Change, given: dict[str, Any], ctx: click.Context) -> list[str]:
    """What leads to a change of a plan: the options as given, as far as they still mean something, and its own."""
    from peftbench.cli.ask.command_line import retyped
    from peftbench.cli.ask.plan_question import with_effect

    kept = {**with_effect(given, change.training.method), "method": (plan.method,)}
    if plan.gpu and len(given["gpu"]) + bool(given["gpu_memory"]) != 1:
        by_size = plan.gpu.name == "given"
        kept |= {"gpu": () if by_size else (plan.gpu.name,), "gpu_memory": given["gpu_memory"] if by_size else None}
    return retyped(ctx.command.params, kept, change.arguments)


def maxima_of(plans: list[Plan], field: str) -> list[Maximum]:
    """The answers to --max."""
    from peftbench.decide.plan.largest import largest_of
    from peftbench.report.plan.maxima import Maximum

    return [Maximum(plan, largest_of(*plan.variable, field)) for plan in plans if plan.variable]
