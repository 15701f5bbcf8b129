"""One GPU's part of a model that is split by tensor parallelism: matrices and KV cache; adapters stay whole."""

from __future__ import annotations

from peftbench.base.errors import SpecError
from peftbench.estimate.parts.base_weights import quantized_weights, weight_bytes
from peftbench.inputs.model.parts import LatentAttention
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.model.weight import Role
from peftbench.inputs.model.weights import num_parameters, weights_of
from peftbench.inputs.recipe import DType, QuantizationSpec
from peftbench.memory import Component, Part, Phase, exact

SPLIT = frozenset({Role.LINEAR, Role.EXPERTS, Role.LM_HEAD})
"""By columns or rows, as in base_model_tp_plan of transformers' configurations; the rest is on every GPU."""


def check_heads(model: ModelSpec, gpus: int) -> None:
    """Raise SpecError where the query heads cannot be dealt out evenly: transformers and vLLM refuse it."""
    if model.num_attention_heads % gpus:
        what = f"{gpus} GPUs cannot share the {model.num_attention_heads} attention heads of {model.name}."
        raise SpecError(what, "Use a count that divides the heads.")


def split_weights(
    model: ModelSpec, dtype: DType, quantization: QuantizationSpec | None, gpus: int, phases: frozenset[Phase]
) -> list[Component]:
    """Matrices cut into equal parts, with the constants of those that are quantized; embeddings and norms whole."""
    sizes = weight_bytes(model, dtype, quantization)
    quantized = sum(w.total for w in quantized_weights(model, quantization))
    split = sum(w.total for w in weights_of(model) if w.role in SPLIT) - quantized
    whole = num_parameters(model) - quantized - split
    each = sizes.unquantized_bytes / max(split + whole, 1)
    codes = -(-(sizes.quantized_bytes + sizes.constants_bytes) // gpus)
    rest_bytes = -(-round(split * each) // gpus) + round(whole * each) + sizes.buffers_bytes
    components = (
        exact(Part.WEIGHTS, codes, phases, f"one of {gpus} parts of the quantized matrices and their constants"),
        exact(
            Part.UNQUANTIZED if quantized else Part.WEIGHTS, rest_bytes, phases,
            f"one of {gpus} parts of {split:,} parameters, and {whole:,} on every GPU",
        ),
    )  # fmt: skip
    return [component for component in components if component.bytes]


def split_cache(component: Component, model: ModelSpec, gpus: int) -> Component:
    """Each GPU caches the key and value heads that its query heads read; fewer heads than GPUs are copied.

    Every GPU has all latents, of which each head is expanded.
    """
    heads = model.num_key_value_heads
    latents = any(isinstance(layer.mixer, LatentAttention) for layer in model.layers)
    if component.part is not Part.KV_CACHE or latents or not heads:
        return component
    own = -(-heads // gpus)
    because = f"{component.because}; {own} of {heads} heads"
    sizes = (component.bytes * own // heads, component.low_bytes * own // heads, component.high_bytes * own // heads)
    size, low, high = sizes
    return component._replace(bytes=size, low_bytes=low, high_bytes=high, because=because)
