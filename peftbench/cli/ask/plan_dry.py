"""`peftbench plan --dry-run`: estimates with the dry run of the same recipes beside them."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from peftbench.allocator.settings import parse_settings
from peftbench.base.errors import NoFormula, SpecError, install_hint
from peftbench.base.screen import tell
from peftbench.catalog.adapter_file import adapter_text, read_adapter_file
from peftbench.catalog.models import NamedConfig
from peftbench.cli.ask.adapter_question import has_formula
from peftbench.cli.ask.plan_question import TASK, cards_of, check_dry_run, check_task, plan_of, recipes_of
from peftbench.cli.progress import Progress
from peftbench.decide.card import settle
from peftbench.decide.plan.dry_plan import plan_by_dry_run, with_dry_run, without_dry_run
from peftbench.decide.plan.plan import Plan
from peftbench.dryrun.extrapolate import Extrapolation
from peftbench.dryrun.runner import DryRunError
from peftbench.dryrun.session import DryRun, DryRunSession
from peftbench.dryrun.workload import workload_of
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.inputs.model.spec import ModelSpec, OtherModel
from peftbench.inputs.recipe import InferenceSpec, TrainingSpec
from peftbench.inputs.task import TaskSpec
from peftbench.libraries.refusal import Refused

DRY_RUN_LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes")
"""What the child of a dry run imports."""


def model_of(named: NamedConfig) -> ModelSpec | OtherModel:
    """The model by formula where there is one, else by name."""
    try:
        return named.spec
    except NoFormula:
        return named.other


def without_formula(given: dict[str, Any], why: NoFormula) -> dict[str, Any]:
    """The question as one of a dry run; a line on stderr says so. Raises NoFormula where a library of it is missing."""
    because = why.what.removesuffix(".")
    for name in ("max", "explain"):
        if given[name]:
            raise NoFormula(f"{because}, and --{name} is answered by formula.", f"Leave out --{name}.")
    missing = [name for name in DRY_RUN_LIBRARIES if find_spec(name) is None]
    if missing:
        needs = f"a dry run can tell what it needs, with {', '.join(missing)} installed"
        raise NoFormula(f"{because}: {needs}.", install_hint(extra="bench")) from None
    asked = {**given, "dry_run": True}
    check_dry_run(asked)
    tell(f"{because}: a dry run tells what it needs, which takes seconds to minutes.")
    return asked


def dry_plans_of(named: NamedConfig, given: dict[str, Any]) -> list[Plan]:
    """A plan for each card and recipe, each with its dry run; why one has none is among its notes.

    Raises the dry run's error where there is no estimate to show instead.
    """
    model = model_of(named)
    with DryRunSession(not given["no_cache"], tell, given["timeout"]) as session:
        return [
            _plan(named, model, recipe, card, given, session)
            for card in cards_of(given)
            for recipe in recipes_of(model, given)
        ]


def _plan(
    named: NamedConfig, model: ModelSpec | OtherModel, recipe: TrainingSpec | InferenceSpec, card: GpuSpec | None,
    given: dict[str, Any], session: DryRunSession,
) -> Plan:  # fmt: skip
    estimate = _estimate(model, recipe, card, given)
    settled = estimate.recipe if estimate else settle(model, recipe, card)[0]
    try:
        dry_run = run_dry(named, settled, card, given, session)
    except (DryRunError, Refused) as error:
        if estimate is None:
            raise
        return without_dry_run(estimate, error)
    return with_dry_run(estimate, dry_run) if estimate else plan_by_dry_run(model, settled, card, dry_run)


def _estimate(
    model: ModelSpec | OtherModel, recipe: TrainingSpec | InferenceSpec, card: GpuSpec | None, given: dict[str, Any]
) -> Plan | None:
    if not isinstance(model, ModelSpec) or not has_formula(given):
        return None
    try:
        check_task(given)
        return plan_of(model, recipe, card, given["format"] == "json", given)
    except NoFormula:
        return None


def run_dry(
    named: NamedConfig, recipe: TrainingSpec | InferenceSpec, card: GpuSpec | None, given: dict[str, Any],
    session: DryRunSession,
) -> DryRun | Extrapolation:  # fmt: skip
    """The dry run of one recipe that was settled for this card, as the options ask for it."""
    settings = parse_settings(given["alloc_conf"] or "")
    path = given["adapter_config"]
    workload = workload_of(
        named.config, recipe, card,
        adapter_config=adapter_text(read_adapter_file(path)) if path else "",
        batch_lengths=_lengths(given["batch_lengths"]),
        empty_cache_steps=given["torch_empty_cache_steps"] or 0,
        device=given["dry_run_device"],
        task_spec=_task(given),
    )  # fmt: skip
    with Progress(f"dry run of {recipe.method}") as progress:
        if given["extrapolate"]:
            return session.extrapolate(workload, card, progress)
        return session.run(workload, card, settings, progress)


def _task(given: dict[str, Any]) -> TaskSpec:
    """What the options say; a timeline has none of them."""
    return TaskSpec(**{name: given[name] for name in TASK if given.get(name)})


def _lengths(text: str | None) -> tuple[int, ...]:
    """Read "696,610" as two lengths."""
    if text is None:
        return ()
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        what = f"cannot read --batch-lengths {text[:40]!r}."
        raise SpecError(what, "Write whole numbers with commas between: 696,610.") from None
