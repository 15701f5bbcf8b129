"""`peftbench plan`: will this fine-tuning run fit, what takes the memory, and what would make it fit?"""

from __future__ import annotations

from typing import Any

import click

from peftbench.base.screen import say
from peftbench.cli.ask.format_option import show
from peftbench.cli.ask.options import SECTIONS, SectionedCommand


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
    from peftbench.cli.answer.plan import largest_of, largest_text, sheet_of
    from peftbench.cli.ask.plan_question import check_question, notes_of_files, plans_of, question_of, recipes_of
    from peftbench.decide.verdict import Fit

    check_question(given)
    named, given = question_of(given)
    notes: list[str] = []
    if given["dry_run"]:
        from peftbench.cli.ask.plan_dry import dry_plans_of
        from peftbench.cli.signals import end_on_signals

        end_on_signals(ctx)
        plans = dry_plans_of(named, given)
    else:
        model = named.spec
        plans, notes = plans_of(model, recipes_of(model, given), given)
    if read := notes_of_files(given):
        plans = [plan._replace(notes=(*read, *plan.notes)) for plan in plans]
    if given["max"]:
        found = largest_of(plans, given)
        say(largest_text(found, plans, given))
        ctx.exit(0 if any(found.values()) else 1)
    show(sheet_of(plans, notes, given, ctx), given["format"])
    if given["check"] and all(p.final_verdict and p.final_verdict.fit is Fit.DOES_NOT_FIT for p in plans):
        ctx.exit(1)
