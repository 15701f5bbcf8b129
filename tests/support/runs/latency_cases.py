"""Latency comparisons of a tiny Llama, for tests."""

from __future__ import annotations

import json
from typing import Any

from run_records import TINY

from peftbench.inputs.comparison import LatencyCase, Variant
from peftbench.inputs.recipe import AdapterSpec, DType, QuantizationSpec

LORA = AdapterSpec(r=4, target_modules=("all-linear",))
NF4 = QuantizationSpec(compute_dtype=DType.FLOAT32)
INT8 = QuantizationSpec(quant_type="int8")


def variant(name: str, route: str = "base", **options: Any) -> Variant:
    """In float32, with LoRA on every route but base."""
    return Variant(**{"name": name, "route": route, "adapter": None if route == "base" else LORA, **options})


BASE, DYNAMIC, MERGED = variant("base"), variant("dynamic", "dynamic"), variant("merged", "merged")


def latency_case(*variants: Variant, **options: Any) -> LatencyCase:
    """On the CPU."""
    return LatencyCase(**{
        "id": "lat", "model": "tiny", "config": json.dumps(TINY, sort_keys=True), "variants": variants, "device": "cpu",
        "prompt_tokens": 8, "new_tokens": 4, "rounds": 20, "most_rounds": 20, **options,
    })  # fmt: skip
