"""What the variants of a latency comparison are predicted to take, each alone."""

from __future__ import annotations

import json

from peftbench.base.errors import SpecError
from peftbench.catalog.models import NamedConfig
from peftbench.estimate.inference import estimate_inference
from peftbench.inputs.comparison import ComparisonCase, LatencyCase, Variant
from peftbench.inputs.recipe.inference import InferenceSpec


def request_of(case: LatencyCase, variant: Variant) -> InferenceSpec:
    """The generation that a round of the variant is; a merged adapter is none."""
    return InferenceSpec(
        prompt_tokens=case.prompt_tokens, new_tokens=case.new_tokens, batch_size=case.batch_size, dtype=variant.dtype,
        adapter=variant.adapter if variant.route == "dynamic" else None,
        quantization=variant.quantization,
    )  # fmt: skip


def predict_variant(case: ComparisonCase, variant: Variant) -> int | None:
    """Its allocated peak in bytes; None where the model has no config before it is loaded, or no formula."""
    if not isinstance(case, LatencyCase):
        return None
    model = NamedConfig(json.loads(case.config), case.model, f"case {case.id}")
    try:
        return estimate_inference(model.spec, request_of(case, variant), None).allocated_bytes
    except SpecError:
        return None
