"""`peftbench timeline`: what holds the memory at every moment of a dry run, as a page to zoom into."""

from __future__ import annotations

import os
from collections.abc import Sequence
from copy import copy
from typing import Any, TypeVar

import click

from peftbench.base.errors import PeftbenchError, SpecError
from peftbench.base.screen import put_page, say, tell
from peftbench.cli.ask.format_option import write_file
from peftbench.cli.ask.options import DRY_RUN, QUESTION, SectionedCommand
from peftbench.cli.ask.options import SECTIONS as OF_PLAN
from peftbench.cli.ask.plan_dry import model_of, run_dry
from peftbench.cli.ask.plan_question import cards_of, check_question, question_of, recipes_of, with_files
from peftbench.decide.card import settle
from peftbench.decide.plan.dry_plan import notes_on, plan_by_dry_run
from peftbench.decide.plan.plan import Plan
from peftbench.dryrun.session import DryRun, DryRunSession
from peftbench.dryrun.trace.snapshot import snapshot_bytes
from peftbench.inputs.recipe import InferenceSpec, TrainingSpec
from peftbench.report.format.html import check_extra
from peftbench.report.timeline.page import peak, timeline_html

Found = TypeVar("Found")

STDOUT = "-"
VIEWER = "https://pytorch.org/memory_viz"

_UNDERSTOOD = ("dry_run", "extrapolate")
"""Options of `plan` that have no place in the help here: one goes without saying, the other is refused."""


def _hidden(option: click.Option) -> click.Option:
    hidden = copy(option)
    hidden.hidden = True
    return hidden


OUTPUT = (
    click.Option(
        ["--output", "-o"], metavar="FILE", default="timeline.html", show_default=True,
        help="The page to write; - for stdout.",
    ),
    click.Option(["--snapshot"], metavar="FILE", help=f"Also write a memory snapshot, which {VIEWER} opens."),
)  # fmt: skip

SECTIONS = {
    "Question": QUESTION,
    "Output": OUTPUT,
    **{name: OF_PLAN[name] for name in ("Training recipe", "Several GPUs", "Adapter", "Quantization", "Inference")},
    "Dry run": tuple(_hidden(option) if option.name in _UNDERSTOOD else option for option in DRY_RUN),
}

_NOT_ASKED = {"max": None, "explain": None, "framework": None, "check": False, "format": "terminal"}


@click.command("timeline", cls=SectionedCommand, sections=SECTIONS)
def timeline(output: str, snapshot: str | None, **given: Any) -> None:
    """Run one recipe on fake tensors and write a page that shows what holds the memory at every moment.

    \b
      peftbench timeline --model 8b --gpu t4 --method qlora
      peftbench timeline --model 8b --gpu t4 --method qlora --snapshot 8b.pickle
      peftbench timeline --model 1b --no-gpu --method lora -o - > lora.html

    Takes one method, one card or --no-gpu, and the options of `plan --dry-run`. The page is one file that loads nothing
    from the network. It shows what the recipe asks for, also where that is more than the card has.
    """
    _check_files(output, snapshot)
    check_extra()
    plan = _dry_plan({**given, **_NOT_ASKED, "dry_run": True})
    if snapshot:
        _write_snapshot(snapshot, plan)  # before the page, which may go to stdout: a refusal leaves that empty
    _write_page(output, plan)


def _check_files(output: str, snapshot: str | None) -> None:
    """Find out before the dry run what would go wrong after it."""
    if snapshot in (STDOUT, ""):
        raise PeftbenchError("a snapshot needs a file.", "Name one, as in --snapshot memory.pickle.")
    if snapshot and os.path.abspath(snapshot) == os.path.abspath(output):
        raise PeftbenchError("--output and --snapshot are one file.", "Name two.")
    for option, path in (("--output", output), ("--snapshot", snapshot)):
        if path is None or path == STDOUT:
            continue
        folder = os.path.dirname(path)
        if folder and not os.path.isdir(folder):
            raise PeftbenchError(f"there is no folder {folder}.", f"Make it, or name another file with {option}.")
        if not path or os.path.isdir(path):
            raise PeftbenchError(f"{option} needs a file, not {path or 'nothing'!r}.", f"As in {option} memory.html.")


# ── the run ─────────────────────────────────────────────────────────────────────────────────────────────────


def _dry_plan(given: dict[str, Any]) -> Plan:
    """The plan of the one recipe, with its dry run. Raises PeftbenchError where there is none."""
    if given["extrapolate"]:
        raise SpecError("a run of a few layers has no timeline of the whole.", "Leave out --extrapolate.")
    check_question(given)
    named, given = question_of(given)
    model = model_of(named)
    recipes: Sequence[TrainingSpec | InferenceSpec] = recipes_of(model, given)
    asked = _only(recipes, "method", "--method qlora")
    card = _only(cards_of(given), "card", "--gpu t4")
    recipe, notes = settle(model, asked, card)
    with DryRunSession(not given["no_cache"], tell, given["timeout"]) as session:
        dry_run = run_dry(named, recipe, card, given, session)
    plan = plan_by_dry_run(model, recipe, card, dry_run)
    return with_files([plan._replace(notes=(*notes, *notes_on(dry_run)))], named, given)[0]


def _only(found: Sequence[Found], what: str, example: str) -> Found:
    """The one that was asked for; raises SpecError for several."""
    if len(found) > 1:
        raise SpecError(f"a timeline is that of one {what}.", f"Name one, as in {example}.")
    return found[0]


# ── what is written ─────────────────────────────────────────────────────────────────────────────────────────


def _write_page(path: str, plan: Plan) -> None:
    """The page, and one line that says where it is and what the peak was."""
    page = timeline_html(plan)
    if path == STDOUT:
        put_page(page)
        tell(f"the page: {peak(plan)}", label="")
    else:
        write_file(path, page, "Name another file with --output.")
        say(f"{path}: {peak(plan)}")


def _write_snapshot(path: str, plan: Plan) -> None:
    assert isinstance(plan.dry_run, DryRun)
    snapshot = snapshot_bytes(plan.dry_run.trace, plan.dry_run.settings)
    write_file(path, snapshot, "Name another file with --snapshot.")
    tell(f"{path}: drop it on {VIEWER}", label="")
