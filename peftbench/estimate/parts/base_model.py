"""The base model's weights as components of memory: one when they are in one dtype, several when quantized."""

from __future__ import annotations

from peftbench.estimate.parts.base_weights import weight_bytes
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.recipe.dtype import DType
from peftbench.inputs.recipe.quantization import QuantizationSpec
from peftbench.memory import Component, Part, Phase, exact


def weight_components(
    model: ModelSpec, dtype: DType, quantization: QuantizationSpec | None, phases: frozenset[Phase]
) -> list[Component]:
    """The weights in `dtype`, or as bitsandbytes stores them: codes, constants, and what it leaves alone."""
    sizes = weight_bytes(model, dtype, quantization)
    rest_bytes = sizes.unquantized_bytes + sizes.buffers_bytes
    if quantization is None:
        because = f"{sizes.unquantized_bytes // dtype.bytes:,} parameters × {dtype.bytes} B"
        return [exact(Part.WEIGHTS, rest_bytes, phases, because)]
    kept = "float32 after prepare_model_for_kbit_training" if quantization.upcast_unquantized else dtype.value
    experts = f"three-dimensional parameters, which {quantization.scheme.library} does not quantize, stay {kept}"
    rest = f"embeddings, head, norms and biases stay {kept}"
    codes = f"{quantization.quant_type} codes of the linear layers"
    parts = [
        exact(Part.WEIGHTS, sizes.quantized_bytes, phases, codes),
        exact(Part.QUANTIZATION_CONSTANTS, sizes.constants_bytes, phases, quantization.scheme.constants(quantization)),
        exact(Part.EXPERTS, sizes.experts_bytes, phases, experts),
        exact(Part.UNQUANTIZED, rest_bytes - sizes.experts_bytes, phases, rest),
    ]
    return [part for part in parts if part.bytes]
