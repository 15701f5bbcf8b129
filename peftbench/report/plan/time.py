"""How long a training step is expected to take: the table beside a plan, `--explain time`, and the key of the JSON."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from peftbench.base.errors import SpecError
from peftbench.decide.plan.plan import Plan
from peftbench.estimate.time.step import StepTime, step_time, unknown_time
from peftbench.inputs.recipe.training import TrainingSpec
from peftbench.report.format.sheet import UNKNOWN, Table
from peftbench.report.format.terminal import Style, reflow, render, two_sided, wrap
from peftbench.report.plan.header import DOT, card_title, model_title
from peftbench.report.plan.views import by_room, may_fit, seconds_text


def time_table(plans: Iterable[Plan]) -> Table | None:
    """A line for each training plan that may fit, in the order of the comparison; None where there is none."""
    running = [plan for plan in plans if plan.time and may_fit(plan.final_verdict)]
    if not running:
        return None
    rows = [_row(plan.method, plan.time) for plan in by_room(running) if plan.time]
    return Table(_title(running), ("", "a step", "tokens/s", "band", "most of it"), rows, "lrrrl")


def time_notes(plans: Iterable[Plan]) -> list[str]:
    """Why training plans have no time, once each; whoever gave a size for a card did not ask for one."""
    named = [plan for plan in plans if plan.gpu and plan.gpu.name != "given"]
    timeless = [plan for plan in named if plan.time is None and may_fit(plan.final_verdict)]
    reasons = (_unknown(plan) for plan in timeless if isinstance(plan.recipe, TrainingSpec))
    return [f"no time of a step: {reason}." for reason in dict.fromkeys(reasons)]


def _unknown(plan: Plan) -> str:
    """Why a training plan has no time."""
    known = plan.by_formula and isinstance(plan.recipe, TrainingSpec) and plan.gpu is not None
    reason = unknown_time(plan.recipe, plan.gpu) if known else ""  # type: ignore[arg-type]
    return reason or f"no formula covers {plan.model.model_type}"


def _title(plans: list[Plan]) -> str:
    """What all the times are, and which of them are uncalibrated and why."""
    title = "expected by formula, not measured"
    doubts = {plan.method: plan.time.doubt for plan in plans if plan.time and plan.time.doubt}
    if not doubts:
        return title
    some = "," if len(doubts) == len({plan.method for plan in plans}) else f" for {', '.join(doubts)}:"
    return f"{title}; uncalibrated{some} {next(iter(doubts.values()))}"


def _row(method: str, step: StepTime) -> tuple[str, ...]:
    largest = max(step.terms, key=lambda term: term.seconds)
    band = f"{step.tokens_per_s_low:,.0f}–{step.tokens_per_s_high:,.0f}"
    return method, seconds_text(step.step_s), f"{step.tokens_per_s:,.0f}", band, largest.name


# ── --explain time ──────────────────────────────────────────────────────────────────────────────────────


def explain_time(plans: list[Plan], style: Style) -> str:
    """Every term of a step of each plan, and how they combine. Raises SpecError for inference and without a card."""
    if plans[0].task == "inference":
        raise SpecError("--explain time is about a training step.", "Leave out --task inference.")
    if plans[0].gpu is None:
        raise SpecError("the time of a step depends on the card.", "Name one, as in --gpu a100-80gb.")
    title = two_sided(model_title(plans[0].model), card_title(plans[0].gpu), style.width)
    return "\n\n".join([title, *(_explained(plan, style) for plan in plans), _formula(style.width)])


def _explained(plan: Plan, style: Style) -> str:
    step = plan.time
    if step is None:
        return f"{plan.method}{DOT}time {UNKNOWN}: {_unknown(plan)}"
    known = "" if step.calibrated else f"{DOT}uncalibrated"
    head = f"{plan.method}{DOT}{seconds_text(step.step_s)} a step{DOT}{step.tokens_per_s:,.0f} tokens/s{known}"
    rows = [(term.name, seconds_text(term.seconds), f"{term.seconds / step.step_s:.0%}", term.because)
            for term in step.terms]  # fmt: skip
    table = render(Table("", ("", "", "", ""), rows, "lrrl"), style.width, style.colour)
    band = f"expected within {seconds_text(step.low_s)} and {seconds_text(step.high_s)}"
    within = f"{band}; {step.doubt}" if step.doubt else band
    return "\n".join([head, table, *(f"  {line}" for line in wrap(within, style.width - 2))])


def _formula(width: int) -> str:
    """The docstring of the formula's file, read from the code so that it cannot drift from it."""
    from inspect import getdoc, getmodule

    doc = getdoc(getmodule(step_time)) or ""
    return "estimate/time/step.py\n" + "\n".join(f"  {line}".rstrip() for line in reflow(doc, width - 2))


# ── JSON ────────────────────────────────────────────────────────────────────────────────────────────────


def time_document(step: StepTime | None) -> dict[str, Any] | None:
    """The key "time" of a training plan; seconds of the terms add up to those of the step. null where unknown."""
    if step is None:
        return None
    return {
        "step_s": step.step_s,
        "step_low_s": step.low_s,
        "step_high_s": step.high_s,
        "tokens_per_s": step.tokens_per_s,
        "tokens_per_s_low": step.tokens_per_s_low,
        "tokens_per_s_high": step.tokens_per_s_high,
        "calibrated": step.calibrated,
        "framework": step.framework,
        "terms": {term.name.replace(" ", "_") + "_s": term.seconds for term in step.terms},
    }
