"""What a case is predicted to take on a card: by formula, for suites before they run and for records afterwards."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache

from peftbench.base.errors import SpecError
from peftbench.catalog.models import NamedConfig
from peftbench.decide.plan.largest import Largest, largest_of
from peftbench.estimate.inference import estimate_inference
from peftbench.estimate.training import estimate_training
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.inputs.case import Case
from peftbench.inputs.comparison import ComparisonCase, LatencyCase, Variant
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.recipe import InferenceSpec, TrainingSpec
from peftbench.memory import MemoryProfile

CPU = GpuSpec(name="cpu", product="CPU", memory_bytes=1, memory_source="", is_cpu=True)
"""Stands for a CPU in a formula: other kernels, no caching allocator, no context; its memory is not judged."""


def model_of(case: Case | LatencyCase) -> ModelSpec:
    """The model by formula. Raises SpecError for an architecture that has none."""
    return _model(case.config, case.model)


@lru_cache(maxsize=64)
def _model(config: str, name: str) -> ModelSpec:
    return NamedConfig(json.loads(config), name, "the config of a case").spec


def device_of(case: Case, gpu: GpuSpec | None) -> GpuSpec | None:
    """The card with what the case may have of it, or the CPU."""
    if case.device == "cpu":
        return CPU
    if gpu is None or case.memory_limit_bytes is None:
        return gpu
    within = case.memory_limit_bytes + gpu.context_bytes + gpu.in_use_bytes
    return replace(gpu, memory_bytes=min(gpu.memory_bytes, within))


def predict_case(case: Case, gpu: GpuSpec | None) -> MemoryProfile:
    """The estimate of a case on this card. Raises SpecError where there is no formula."""
    return _predicted(case.config, case.model, case.recipe, device_of(case, gpu))


@lru_cache(maxsize=4096)
def _predicted(config: str, name: str, recipe: TrainingSpec | InferenceSpec, device: GpuSpec | None) -> MemoryProfile:
    """Of thousands of records most repeat the cases of a few suites."""
    model = _model(config, name)
    if isinstance(recipe, TrainingSpec):
        return estimate_training(model, recipe, device)
    return estimate_inference(model, recipe, device)


def predict_largest(case: Case, option: str, gpu: GpuSpec | None) -> Largest | None:
    """The largest value of the option with which the case is predicted to run; None where nothing can say."""
    card = device_of(case, gpu)
    if card is None or card.is_cpu or not isinstance(case.recipe, TrainingSpec):
        return None
    try:
        model = model_of(case)
    except SpecError:
        return None
    return largest_of(model, case.recipe, card, option)


# ── what the variants of a comparison are predicted to take, each alone ─────────────────────────────────────────────


def _request_of(case: LatencyCase, variant: Variant) -> InferenceSpec:
    """The generation that a round of the variant is; a merged adapter is none."""
    return InferenceSpec(
        prompt_tokens=case.prompt_tokens, new_tokens=case.new_tokens, batch_size=case.batch_size, dtype=variant.dtype,
        adapter=variant.adapter if variant.route == "dynamic" else None,
        quantization=variant.quantization,
    )  # fmt: skip


def predict_variant(case: ComparisonCase, variant: Variant) -> int | None:
    """The allocated peak of a variant in bytes; None where there is no config before it is loaded, or no formula."""
    if not isinstance(case, LatencyCase):
        return None
    try:
        return estimate_inference(model_of(case), _request_of(case, variant), None).allocated_bytes
    except SpecError:
        return None
