"""Where the bytes of a part or the seconds of a step come from, with the docstrings of the functions behind them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from inspect import getdoc, getmodule

from peftbench.base.errors import SpecError, did_you_mean
from peftbench.base.units import human_bytes
from peftbench.decide.plan.plan import Plan
from peftbench.estimate.time.step import step_time
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.recipe import InferenceSpec, TrainingSpec
from peftbench.memory import Component, Part, Phase
from peftbench.report.format.sheet import UNKNOWN, Table
from peftbench.report.format.terminal import Style, reflow, render, two_sided, wrap
from peftbench.report.plan.header import DOT, card_title, model_title
from peftbench.report.plan.time import why_timeless
from peftbench.report.plan.views import seconds_text

FORMULAS: dict[Part, tuple[str, ...]] = {
    Part.WEIGHTS: ("parts.base_weights.weight_bytes",),
    Part.LOADING: ("sharding.loading.loading",),
    Part.QUANTIZATION_CONSTANTS: (),
    Part.EXPERTS: ("parts.base_weights.quantized_weights",),
    Part.UNQUANTIZED: ("parts.base_weights.quantized_weights", "parts.base_weights._buffers_bytes"),
    Part.ADAPTERS: ("peft_types.tensors.adapter_tensors", "peft_types.tensors.frozen_on_card_bytes"),
    Part.GRADIENTS: ("training.trained_tensors",),
    Part.ACCUMULATED: ("sharding.state.accumulated_bytes", "sharding.step._passes"),
    Part.OPTIMIZER: ("parts.optimizer.optimizer_bytes",),
    Part.OPTIMIZER_TEMPORARIES: ("parts.optimizer._torch_bytes", "parts.optimizer._adafactor_bytes"),
    Part.CHECKPOINTS: ("forward.segments.run_checkpointed",),
    Part.ACTIVATIONS: (
        "forward.moments.step_moments", "forward.layers.decoder_layer", "forward.mixers.attention.attention",
    ),
    Part.LOGITS: ("forward.loss.head_and_loss",),
    Part.KV_CACHE: ("forward.mixers.attention.keep_in_cache",),
    Part.DEQUANTIZATION: (),
    Part.WORKSPACE: ("parts.card.cublas_workspace_bytes",),
    Part.GATHERED: (
        "sharding.step._gathered_bytes", "sharding.fsdp2._gathered_bytes", "sharding.step._flat_gathered",
        "sharding.step._live_bytes",
    ),
    Part.BUCKETS: ("sharding.state._buckets",),
    Part.SLACK: ("parts.slack.slack",),
    Part.NCCL: ("sharding.reserved.nccl",),
    Part.CONTEXT: ("parts.slack.context",),
}
"""The functions of `estimate` that compute each part of a training step, whatever the recipe."""

OF_THE_SCHEME = {Part.QUANTIZATION_CONSTANTS: "constants_bytes", Part.DEQUANTIZATION: "forward"}
"""The functions of a scheme's row that compute a part."""

GENERATION = (Part.ACTIVATIONS, Part.LOGITS, Part.KV_CACHE)
"""What a generation request computes in a way of its own."""


def explain(plans: list[Plan], text: str, style: Style) -> str:
    """Derive one part of every plan, or the time of its step. Raises SpecError for a name that is neither."""
    if _plain(text) == "time":
        _check_timed(plans[0])
        blocks = [_step(plan, style) for plan in plans]
        blocks.append(_formula("estimate/time/step.py", getmodule(step_time), style.width))
    else:
        part = find_part(text)
        blocks = [_explained(plan, part, style.width) for plan in plans]
        blocks.append(_formulas(plans, part, style.width))
    return "\n\n".join([two_sided(model_title(plans[0].model), card_title(plans[0].gpu), style.width), *blocks])


def find_part(text: str) -> Part:
    """The part that `text` names, in any case and with spaces, hyphens or underscores."""
    wanted = _plain(text)
    for part in Part:
        if wanted in (_plain(part.value), _plain(part.name)):
            return part
    what = f"no part named {text[:40]!r}. {did_you_mean(text[:40], [p.value for p in Part])}".rstrip()
    raise SpecError(what, f"Parts: {', '.join(p.value for p in Part)}; and time.")


def _plain(text: str) -> str:
    return "".join(letter for letter in text.lower() if letter.isalnum())


def _explained(plan: Plan, part: Part, width: int) -> str:
    components = [c for c in plan.profile.components if c.part is part]
    if not components:
        return f"{plan.method}{DOT}{part}{DOT}none"
    return "\n".join(line for c in components for line in _component(plan.method, c, width))


def _component(method: str, component: Component, width: int) -> Iterator[str]:
    """What, how much, how well known, when; then the arithmetic and the band."""
    phases = ", ".join(phase.value for phase in Phase if phase in component.phases)
    head = DOT.join((method, component.part.value, human_bytes(component.bytes), component.basis.value))
    yield from wrap(f"{head}{DOT}alive in: {phases}", width)
    yield from (f"  {line}" for line in wrap(component.because, width - 2) if component.because)
    if component.low_bytes != component.high_bytes:
        yield f"  expected within {human_bytes(component.low_bytes)} and {human_bytes(component.high_bytes)}"


def _formulas(plans: list[Plan], part: Part, width: int) -> str:
    functions = dict.fromkeys(
        function
        for plan in plans
        if isinstance(plan.model, ModelSpec)
        for function in formulas_of(part, plan.model, plan.recipe)
    )
    files = ((f"{f.__module__.removeprefix('peftbench.').replace('.', '/')}.py, {f.__name__}", f) for f in functions)
    return "\n\n".join(_formula(title, function, width) for title, function in files)


def formulas_of(
    part: Part, model: ModelSpec, recipe: TrainingSpec | InferenceSpec
) -> tuple[Callable[..., object], ...]:
    """The functions that compute a part of this recipe: of FORMULAS and as the recipe chooses."""
    if part in OF_THE_SCHEME:
        return (getattr(recipe.quantization.scheme, OF_THE_SCHEME[part]),) if recipe.quantization else ()
    if isinstance(recipe, InferenceSpec):
        own = ("inference.estimate_inference", "forward.generation.prefill_moments")
        return tuple(map(_function, own if part in GENERATION else FORMULAS[part]))
    functions = tuple(map(_function, FORMULAS[part]))
    if part is Part.LOGITS:
        return (*functions, _loss(model, recipe))
    if part is Part.ACTIVATIONS and recipe.adapter:
        from peftbench.estimate.peft_forward.dispatch import forward_of

        return (*functions, forward_of(recipe.adapter.peft_type))
    return functions


def _loss(model: ModelSpec, recipe: TrainingSpec) -> Callable[..., object]:
    from peftbench.estimate.forward import loss
    from peftbench.estimate.forward.generations import loss_variant

    own: dict[str, Callable[..., object]] = {"liger": loss._fused_linear, "chunked": loss._chunked}
    return own.get(recipe.loss) or loss._LOSSES[loss_variant(model.family, recipe)]


def _function(name: str) -> Callable[..., object]:
    module, function = name.rsplit(".", 1)
    found: Callable[..., object] = getattr(import_module(f"peftbench.estimate.{module}"), function)
    return found


def _formula(title: str, source: object, width: int) -> str:
    """A docstring, read from the code so that it cannot drift from it."""
    return "\n".join([title, *(f"  {line}".rstrip() for line in reflow(getdoc(source) or "", width - 2))])


# ── the time of a step ──────────────────────────────────────────────────────────────────────────────────────────────


def _check_timed(plan: Plan) -> None:
    if plan.task == "inference":
        raise SpecError("--explain time is about a training step.", "Leave out --task inference.")
    if plan.gpu is None:
        raise SpecError("the time of a step depends on the card.", "Name one, as in --gpu a100-80gb.")


def _step(plan: Plan, style: Style) -> str:
    """Every term of a step, and the band."""
    step = plan.time
    if step is None:
        return f"{plan.method}{DOT}time {UNKNOWN}: {why_timeless(plan)}"
    known = "" if step.calibrated else f"{DOT}uncalibrated"
    head = f"{plan.method}{DOT}{seconds_text(step.step_s)} a step{DOT}{step.tokens_per_s:,.0f} tokens/s{known}"
    rows = [(term.name, seconds_text(term.seconds), f"{term.seconds / step.step_s:.0%}", term.because)
            for term in step.terms]  # fmt: skip
    table = render(Table("", ("", "", "", ""), rows, "lrrl"), style.width, style.colour)
    band = f"expected within {seconds_text(step.low_s)} and {seconds_text(step.high_s)}"
    within = f"{band}; {step.doubt}" if step.doubt else band
    return "\n".join([head, table, *(f"  {line}" for line in wrap(within, style.width - 2))])
