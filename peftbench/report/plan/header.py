"""The first lines of an answer: which model, which card, and every assumption about the recipe."""

from __future__ import annotations

from typing import Any

from peftbench.base.units import gib, human_count
from peftbench.decide.plan.plan import Plan
from peftbench.estimate.peft_types.table import METHODS
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.inputs.model.spec import ModelSpec, OtherModel
from peftbench.inputs.model.weights import num_parameters
from peftbench.inputs.recipe import ALL_LINEAR, AdapterSpec
from peftbench.inputs.recipe.option import in_order, options_of

DOT = " · "
MOST_NAMES = 12
"""More names of modules are counted: PEFT can list every module of every layer."""


def model_title(model: ModelSpec | OtherModel) -> str:
    """What the name resolved to, and its size."""
    return f"{model.name}{DOT}{human_count(num_parameters(model))} parameters"


def card_title(gpu: GpuSpec | None) -> str:
    """The card, what torch sees of it, and what others hold."""
    if gpu is None:
        return "no card"
    of = f" of {gpu.nominal_gb} GB" if gpu.nominal_gb else ""
    name = gpu.product if gpu.name == "local" else gpu.name
    free = gpu.memory_bytes - gpu.in_use_bytes
    used = f", {gib(gpu.in_use_bytes)} in use, {gib(free)} free now" if gpu.name == "local" else ""
    return f"{name}{DOT}{gib(gpu.memory_bytes)} GiB visible{of}{used}"


def assumptions(plans: list[Plan]) -> list[str]:
    """The recipe that all plans share, then one piece for each adapter and quantization among them.

    Where each has as many GPUs as it needs, the counts stand beside the methods instead.
    """
    first = plans[0]
    adapters = {plan.recipe.adapter: plan for plan in plans if plan.recipe.adapter}
    quantizations = {plan.recipe.quantization: plan for plan in plans if plan.recipe.quantization}
    return [
        *(_pieces(first.recipe.parallelism, first) if not several_counts(plans) else ()),
        *_pieces(first.recipe, first),
        *(_adapter(adapter, plan) for adapter, plan in adapters.items()),
        *(" ".join(_pieces(quantization, plan)) for quantization, plan in quantizations.items()),
    ]


def several_counts(plans: list[Plan]) -> bool:
    """Whether the plans are of different numbers of GPUs, as --gpus auto makes them."""
    return len({plan.recipe.parallelism for plan in plans}) > 1


def _pieces(spec: Any, plan: Plan) -> list[str]:
    """What the options of one spec are shown as; wording that begins with a space joins the piece before it."""
    pieces: list[str] = []
    for option in in_order(options_of(spec.__class__)):
        text = option.shown(spec, plan.options[option.name])
        if text.startswith(" ") and pieces:
            pieces[-1] += text
        elif text:
            pieces.append(text)
    return pieces


def _adapter(adapter: AdapterSpec, plan: Plan) -> str:
    given = [f"{name}={value}" for name, value in adapter.options]
    pieces = (*_pieces(adapter, plan), _targets(adapter), *given, f"in {adapter.dtype}")
    return " ".join(piece for piece in pieces if piece)


def _targets(adapter: AdapterSpec) -> str:
    """Where the adapter sits; prompts and prefixes sit nowhere."""
    if adapter.target_modules is None:
        method = METHODS.get(adapter.peft_type)
        return "PEFT's targets" if method is None or method.each else ""
    if adapter.target_modules == (ALL_LINEAR,):
        return "all linear"
    named = adapter.target_modules
    return ",".join(named) if len(named) <= MOST_NAMES else f"{len(named)} named modules"
