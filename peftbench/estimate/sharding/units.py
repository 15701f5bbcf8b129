"""What several GPUs gather at a time: the units that FSDP makes of a model."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from peftbench.estimate.parts.base_weights import quantized_weights
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.model.weight import Role, Weight
from peftbench.inputs.model.weights import weights_of
from peftbench.inputs.recipe import QuantizationSpec, TrainingSpec


class Units(NamedTuple):
    """Bytes of the whole units, as they are gathered."""

    layer: int
    """The largest decoder layer, its adapters included."""
    embedding: int
    head: int
    """Final norm and lm_head, and the embeddings where they are tied."""
    whole: int
    adapter: int = 0
    """A layer's adapters alone."""


def units_of(model: ModelSpec, training: TrainingSpec, adapter_bytes: int) -> Units:
    """What FSDP gathers at a time: a decoder layer, the embeddings, and the norm with the head.

    Source: fsdp2_prepare_model in accelerate/utils/fsdp_utils.py, which makes units of the last two.
    """
    return _units(model, training.dtype.bytes, training.quantization, adapter_bytes)


@lru_cache(maxsize=2048)
def _units(model: ModelSpec, itemsize: int, quantization: QuantizationSpec | None, adapter: int) -> Units:
    """By what they depend on: `choose` asks for many numbers of GPUs."""
    quantized = set(quantized_weights(model, quantization))

    def size(weight: Weight) -> int:
        if quantization is not None and weight in quantized:
            return weight.copies * quantization.code_bytes(weight.numel)
        return weight.copies * weight.numel * itemsize

    weights = weights_of(model)
    layers = [sum(size(w) for w in weights if w.layers and i in w.layers) for i in range(model.num_hidden_layers)]
    table = sum(size(w) for w in weights if w.role is Role.EMBEDDING)
    head = sum(size(w) for w in weights if w.layers is None and w.role is not Role.EMBEDDING)
    if model.tie_word_embeddings:
        table, head = 0, head + table
    each = adapter // len(layers)
    return Units(max(layers) + each, table, head, sum(layers) + table + head + adapter, each)
