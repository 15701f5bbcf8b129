"""What a generation request costs beside memory: the expected times, and published losses of models of its size."""

from __future__ import annotations

from typing import NamedTuple

from peftbench.catalog.published_effects import (
    DynamicRatio,
    QualityRow,
    cards_with_latency,
    dynamic_ratio_of,
    quality_of,
)
from peftbench.estimate.time.latency import Latency, estimate_latency
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.model.weights import num_parameters
from peftbench.inputs.recipe import InferenceSpec


class Effects(NamedTuple):
    """Beside the memory of a plan; each is None where nothing is known."""

    latency: Latency | None
    """By formula."""
    quality: QualityRow | None
    """Published of this model or of one of its size, for 4-bit weights."""
    dynamic_ratio: DynamicRatio | None
    """Published of a model of its size, for an adapter that is not merged."""


def effects_of(model: ModelSpec, inference: InferenceSpec, gpu: GpuSpec | None) -> Effects:
    """Look up and expect; raises SpecError as estimate_latency does."""
    quantization, adapter = inference.quantization, inference.adapter
    size = num_parameters(model)
    published = quantization is not None and quantization.scheme.published
    kind = "dora" if adapter and adapter.use_dora else adapter.peft_type if adapter else ""
    return Effects(
        estimate_latency(model, inference, gpu, gpu is not None and gpu.name in cards_with_latency()),
        quality_of(model.name, size, adapter is not None) if published else None,
        dynamic_ratio_of(kind, size) if kind else None,
    )
