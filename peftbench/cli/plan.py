"""`peftbench plan`: will this fine-tuning run fit, what takes the memory, and what would make it fit?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from peftbench.base.errors import NoFormula
from peftbench.cli.ask.format_option import show
from peftbench.cli.ask.options import SECTIONS, SectionedCommand

if TYPE_CHECKING:
    from peftbench.catalog.models import NamedConfig
    from peftbench.decide.plan.plan import Plan


@click.command("plan", cls=SectionedCommand, sections=SECTIONS)
@click.pass_context
def plan(ctx: click.Context, /, **given: Any) -> None:
    """Predict the GPU memory of a fine-tuning run, and say whether it fits, why not, and what would help.

    \b
      peftbench plan --model 8b --gpu t4
      peftbench plan --model 8b --gpu t4 --method qlora --sequence-length 8192
      peftbench plan --model 8b --method lora               all cards compared
      peftbench plan --model 8b --gpu t4 --method qlora --max sequence-length
      peftbench plan --model 8b --gpu t4 --method qlora --dry-run

    \b
      peftbench plan --from axolotl.yml --gpu rtx4090

    Without --method, full fine-tuning, LoRA and QLoRA are compared.
    """
    from peftbench.cli.answer.plan import maxima_of, sheet_of
    from peftbench.cli.ask.plan_question import check_question, question_of, with_files

    check_question(given)
    named, given = question_of(given)
    plans, notes = _answered(named, given, ctx)
    plans = with_files(plans, named, given)
    if given["max"]:
        from peftbench.report.plan.maxima import maxima_sheet

        found = maxima_of(plans, given["max"].replace("-", "_"))
        show(maxima_sheet(found), given["format"])
        ctx.exit(0 if any(each.largest.fits for each in found) else 1)
    show(sheet_of(plans, notes, given, ctx), given["format"])
    if given["check"] and not any(_is_accepted(plan, given["check"]) for plan in plans):
        ctx.exit(1)


def _answered(named: NamedConfig, given: dict[str, Any], ctx: click.Context) -> tuple[list[Plan], list[str]]:
    """The plans, by formula where the model has one and no dry run is asked for; and why cards were left out."""
    if not given["dry_run"]:
        from peftbench.cli.ask.plan_question import check_task, plans_of, recipes_of

        try:
            check_task(given)
            model = named.spec
            return plans_of(model, recipes_of(model, given), given)
        except NoFormula as error:
            from peftbench.cli.ask.plan_dry import without_formula

            given = without_formula(given, error)
    from peftbench.cli.ask.plan_dry import dry_plans_of
    from peftbench.cli.signals import end_on_signals

    end_on_signals(ctx)
    return dry_plans_of(named, given), []


def _is_accepted(plan: Plan, word: str) -> bool:
    """Whether a plan has this word or a better one."""
    from peftbench.decide.verdict import Fit

    verdict = plan.final_verdict
    return verdict is not None and verdict.fit.rank <= Fit(word).rank
