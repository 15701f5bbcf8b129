"""What the names "lora" and "qlora" stand for when nothing else is said: the adapter and the quantization."""

from __future__ import annotations

from typing import Any

from peftbench.inputs.recipe.adapter import ALL_LINEAR, AdapterSpec
from peftbench.inputs.recipe.dtype import DType
from peftbench.inputs.recipe.quantization import QuantizationSpec

LORA = AdapterSpec(peft_type="lora", r=16, target_modules=(ALL_LINEAR,))
"""On every linear layer, as the QLoRA paper recommends, with PEFT's float32 adapters."""


def quantization_for(dtype: DType, **given: Any) -> QuantizationSpec:
    """NF4 with double quantization, computing in the 16-bit type of the recipe, or what is given instead."""
    compute = DType.BFLOAT16 if dtype is DType.FLOAT32 else dtype
    return QuantizationSpec(**{"compute_dtype": compute, **given})
