"""Refuse, before anything is run, what would end in an error after minutes or in wrong figures without one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from peftbench.base.errors import MeasureError
from peftbench.inputs.comparison import REFERENCE, QualityCase, Variant
from peftbench.inputs.recipe import AdapterSpec
from peftbench.measure.child.nf4_guard import refuse_odd_rows
from peftbench.measure.child.quantize import copy_of, quantizable
from peftbench.measure.quality.adapter import Adapter, attach, build_variant, new_adapter, state_of
from peftbench.measure.quality.scores import logits_of

TRIAL_TOKENS = 16
TRIAL_SPREAD = 0.05
"""The spread of the random numbers that are added to a new adapter: most types start as an identity."""
BEYOND, AND = 1.5, 0.05
"""How much further from the predictions of plain weights an adapter may bring those of quantized ones: so many times
what quantization alone does, and so much. What works in PEFT 0.21 stays below 1.5 times or 0.01, what does not is
beyond twice and 0.09."""


def check(case: QualityCase, reference: Any) -> None:
    """Raise MeasureError for what cannot be compared."""
    _check_adapters(case)
    in_order(case)
    for variant in case.variants:
        blocksize = variant.quantization.blocksize if variant.quantization else None
        if blocksize:
            for name, layer in quantizable(reference).items():
                refuse_odd_rows(f"{variant.name}: {name}", layer.in_features, blocksize, case.device)
    if case.by_layer is not None and next(v for v in case.variants if v.name == case.by_layer).quantization is None:
        raise MeasureError(f"by_layer: {case.by_layer} is not quantized.", "Name a case that is.")
    trial = _Trial(first_layer(reference))
    for variant in case.variants:
        if variant.adapter:
            trial.check(variant, variant.adapter)


def adapters_of(case: QualityCase) -> tuple[AdapterSpec, ...]:
    """The pairs that differ, in the order of the variants."""
    return tuple(dict.fromkeys(variant.adapter for variant in case.variants if variant.adapter))


def in_order(case: QualityCase) -> tuple[Variant, ...]:
    """The variants, each after the one that it is compared with. Raises MeasureError where there is no such order."""
    done, left = {REFERENCE}, list(case.variants)
    found: list[Variant] = []
    while left:
        ready = next((variant for variant in left if variant.against in done), None)
        if ready is None:
            names = ", ".join(variant.name for variant in left)
            raise MeasureError(f"each is the standard of another: {names}.", "Compare one with the reference.")
        found.append(ready)
        done.add(ready.name)
        left.remove(ready)
    return tuple(found)


def _check_adapters(case: QualityCase) -> None:
    specs = adapters_of(case)
    if specs and not case.adapter_steps:
        raise MeasureError("adapters need steps to be trained in.", "Set adapter_steps to 10 or more.")
    for variant in case.variants:
        if variant.adapter and variant.adapter != specs[0] and variant.against == REFERENCE:
            what = f"{variant.name} has another adapter than {case.variants[0].name}: their standards differ."
            raise MeasureError(what, "Name a case with the same adapter in its against.")


# ── adapters ────────────────────────────────────────────────────────────────────────────────────────────────────────


def decoder_layers(model: Any) -> nn.ModuleList:
    """The longest list of modules that a causal language model has. Raises MeasureError where there is none."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    if not lists:
        raise MeasureError("the model has no list of decoder layers.", "Choose another model.")
    return max(lists, key=len)


def first_layer(reference: Any) -> Any:
    """The model cut to its first decoder layer, with the same weights."""
    model = copy_of(reference, None)
    del decoder_layers(model)[1:]
    return model


class _Trial:
    """Variants on one decoder layer, with adapters of random weights: they must predict what plain weights do.

    Which types can be put on and merged into which weights differs from one version of PEFT to the next, and what
    cannot need not raise: some types add to the codes of 8-bit weights. So each is tried.
    """

    def __init__(self, reference: Any) -> None:
        self.reference = reference
        self.tokens = torch.arange(TRIAL_TOKENS) + 1
        self.plain = logits_of(reference, self.tokens)
        self.adapted: dict[AdapterSpec, tuple[Adapter, torch.Tensor]] = {}
        """Each adapter, and what it makes plain weights predict."""

    def check(self, variant: Variant, spec: AdapterSpec) -> None:
        """Raise MeasureError where the variant fails, or predicts something else."""
        try:
            distance = self._distance(variant, spec)
        except MeasureError:
            raise
        except Exception as error:  # PEFT and torch raise anything
            reason = " ".join(f"{type(error).__name__} {error}".split())[:80]
            raise MeasureError(f"{_refused(variant, spec)}: {reason}.", HINT) from None
        base = copy_of(self.reference, variant.dtype, variant.quantization)
        allowed = BEYOND * _relative(logits_of(base, self.tokens), self.plain) + AND
        if not distance <= allowed:
            what = f"{_refused(variant, spec)}: PEFT does so without an error, and the predictions are wrong"
            raise MeasureError(f"{what} (by {distance:.2f}, where {allowed:.2f} is to be expected).", HINT)

    def _distance(self, variant: Variant, spec: AdapterSpec) -> float:
        if spec not in self.adapted:
            adapter = _random_adapter(self.reference, spec)
            model = attach(copy_of(self.reference, None, own=True), adapter)
            self.adapted[spec] = adapter, logits_of(model, self.tokens)
        adapter, wanted = self.adapted[spec]
        if variant.round_trips:  # what they do to the weights is to be measured, but the type has to be one that can
            variant = replace(variant, route="merged", round_trips=0)
        return _relative(logits_of(build_variant(self.reference, variant, adapter), self.tokens), wanted)


HINT = "Choose another method (LoRA can be merged into everything), or adapter: dequantized."


def _relative(logits: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((logits - wanted).norm() / wanted.norm())


def _refused(variant: Variant, spec: AdapterSpec) -> str:
    weights = variant.quantization.quant_type if variant.quantization else variant.dtype.value
    route = "merged and unmerged" if variant.round_trips else variant.route
    return f"{variant.name}: an adapter of type {spec.peft_type} cannot be {route} on {weights} weights"


def _random_adapter(reference: Any, spec: AdapterSpec) -> Adapter:
    torch.manual_seed(0)
    model = new_adapter(copy_of(reference, None, own=True), spec)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.add_(TRIAL_SPREAD * torch.randn_like(parameter))
    return Adapter(spec, state_of(model))
