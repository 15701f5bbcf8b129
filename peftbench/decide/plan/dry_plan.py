"""Put a dry run beside an estimate, or in its place where there is no formula."""

from __future__ import annotations

from peftbench.base.errors import PeftbenchError
from peftbench.base.units import human_bytes
from peftbench.decide.plan.plan import Plan
from peftbench.dryrun.extrapolate import Extrapolation
from peftbench.dryrun.session import DryRun
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.inputs.model.spec import ModelSpec, OtherModel
from peftbench.inputs.recipe import InferenceSpec, TrainingSpec


def with_dry_run(plan: Plan, dry_run: DryRun | Extrapolation) -> Plan:
    """The plan with both answers."""
    return plan._replace(dry_run=dry_run, notes=(*plan.notes, *notes_on(dry_run)))


def without_dry_run(plan: Plan, why: PeftbenchError) -> Plan:
    """The estimate, and why it stands alone."""
    return plan._replace(notes=(*plan.notes, f"no dry run of {plan.method}: {why.what} {why.hint}".rstrip()))


def plan_by_dry_run(
    model: ModelSpec | OtherModel, recipe: TrainingSpec | InferenceSpec, gpu: GpuSpec | None,
    dry_run: DryRun | Extrapolation,
) -> Plan:  # fmt: skip
    """A plan whose memory is the dry run's alone; it has no changes."""
    facts, profile = dry_run.facts, dry_run.profile
    if isinstance(model, OtherModel):
        model = model._replace(num_parameters=facts["num_parameters"])
    plan = Plan(
        model=model, gpu=gpu, recipe=recipe, profile=profile, verdict=None, changes=(),
        trainable_parameters=facts["trainable_parameters"] if isinstance(recipe, TrainingSpec) else 0,
        adapter_file_bytes=facts["saved_bytes"],
        notes=("There is no formula for this: the memory is that of the dry run.", *notes_on(dry_run)),
        dry_run=dry_run,
    )  # fmt: skip
    return plan._replace(verdict=plan.dry_verdict)


def notes_on(dry_run: DryRun | Extrapolation) -> tuple[str, ...]:
    """What was run otherwise than asked, and where the card would run out of memory, or only just not."""
    return (*dry_run.facts.get("notes", ()), *_end_notes(dry_run))


def _end_notes(dry_run: DryRun | Extrapolation) -> tuple[str, ...]:
    card = getattr(dry_run, "on_card", None)  # an extrapolation was never replayed
    if card is None or dry_run.gpu is None:
        return ()
    if card.failure:
        block = card.failure.block
        return (
            f"Dry run: {dry_run.gpu.name} runs out of memory in step {card.failure.step + 1}, {card.failure.phase}, in "
            f"{block.module or 'the model itself'}: {block.operation} asks for {human_bytes(block.bytes)} when "
            f"{human_bytes(card.failure.error.allocated_bytes)} are allocated and "
            f"{human_bytes(card.failure.error.reserved_bytes)} reserved.",
        )
    if card.num_alloc_retries:
        times = "once" if card.num_alloc_retries == 1 else f"{card.num_alloc_retries} times"
        return (f"Dry run: on {dry_run.gpu.name} the allocator has to flush its cache {times}, which takes time.",)
    return ()
