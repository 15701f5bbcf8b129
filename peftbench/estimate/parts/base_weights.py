"""Bytes of the base model as it lies on the card: codes, their constants, and the rest.

Source: PEFT 0.21 `prepare_model_for_kbit_training`; what a scheme stores stands in its file of inputs/schemes/.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from peftbench.estimate.parts.tensors import TensorGroup
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.model.weight import Role, Weight
from peftbench.inputs.model.weights import is_router, num_parameters, weights_of
from peftbench.inputs.recipe import DType, QuantizationSpec
from peftbench.inputs.schemes.scheme import Scheme
from peftbench.memory import Component, Part, Phase, exact

HEADER_BYTES_PER_TENSOR = 125
"""A tensor's name, dtype, shape and offsets in a safetensors header: 110 to 131 bytes with Llama's names."""


class WeightBytes(NamedTuple):
    """The base model on the card, without adapters."""

    quantized_bytes: int
    """Codes of the matrices that are quantized; 0 without quantization."""
    constants_bytes: int
    """Absmax values and tables that belong to the codes."""
    unquantized_bytes: int
    """Embeddings, head, norms, biases, fused experts; without quantization the whole model."""
    experts_bytes: int
    """The share of `unquantized_bytes` that is fused experts."""
    buffers_bytes: int
    """Buffers worth counting: GPTBigCode's causal mask."""

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return self.quantized_bytes + self.constants_bytes + self.unquantized_bytes + self.buffers_bytes


def quantized_weights(model: ModelSpec, quantization: QuantizationSpec | None) -> tuple[Weight, ...]:
    """The weights that are stored as codes: never the head, embeddings and norms; none without quantization.

    bitsandbytes reaches neither fused experts nor Falcon's linear layers (their own class), a checkpoint has both.
    """
    return _reached(model, quantization.scheme) if quantization else ()


@lru_cache(maxsize=256)
def _reached(model: ModelSpec, scheme: Scheme) -> tuple[Weight, ...]:
    def reached(weight: Weight) -> bool:
        if weight.role is Role.EXPERTS:
            return scheme.reaches_experts and not weight.parameter.endswith("_bias")
        linear = weight.quantizable or (scheme.reaches_subclasses and weight.role is Role.LINEAR and not weight.read)
        if scheme.experts_only or (weight.conv1d and not scheme.conv1d):
            return False
        if scheme.checkpoint and is_router(model, weight):
            return False  # AutoGPTQ and AutoAWQ leave it alone
        return linear and not (scheme.blocks_only and weight.layers is None)

    return tuple(weight for weight in weights_of(model) if reached(weight))


class Matrices(NamedTuple):
    """Matrices of one shape, each with constants of its own."""

    out_features: int
    in_features: int
    copies: int

    @property
    def numel(self) -> int:
        """Elements of one of them."""
        return self.out_features * self.in_features


def quantized_matrices(model: ModelSpec, quantization: QuantizationSpec | None) -> Iterator[Matrices]:
    """The quantized weights as linear layers: fused experts one by one, their gates and ups apart."""
    hidden, inner, experts = model.hidden_size, model.moe_intermediate_size, model.num_experts
    for weight in quantized_weights(model, quantization):
        if weight.role is not Role.EXPERTS:
            yield Matrices(weight.out_features, weight.in_features, weight.count)
        elif weight.parameter == "down_proj":
            yield Matrices(hidden, inner, experts * weight.count)
        else:
            yield Matrices(inner, hidden, 2 * experts * weight.count)


@lru_cache(maxsize=1024)
def weight_bytes(model: ModelSpec, dtype: DType, quantization: QuantizationSpec | None = None) -> WeightBytes:
    """Bytes of the base model stored in `dtype`, with its quantizable matrices as `quantization` says."""
    quantized = quantized_weights(model, quantization)
    rest = dtype
    codes = constants = 0
    if quantization:
        scheme, matrices = quantization.scheme, tuple(quantized_matrices(model, quantization))
        codes = sum(m.copies * quantization.code_bytes(m.numel) for m in matrices)
        constants = sum(
            m.copies * scheme.constants_bytes(m.out_features, m.in_features, quantization) for m in matrices
        )
        # prepare_model_for_kbit_training casts every 16-bit parameter, experts included, a tied matrix once.
        rest = DType.FLOAT32 if quantization.upcast_unquantized else dtype
    unquantized = (num_parameters(model) - sum(w.total for w in quantized)) * rest.bytes
    if quantization and quantization.upcast_norms and rest is not DType.FLOAT32:
        unquantized += sum(w.total for w in weights_of(model) if w.role is Role.NORM) * (4 - rest.bytes)
    experts = sum(w.total for w in weights_of(model) if w.role is Role.EXPERTS and w not in quantized) * rest.bytes
    return WeightBytes(codes, constants, unquantized, experts, _buffers_bytes(model))


def _buffers_bytes(model: ModelSpec) -> int:
    """GPTBigCode's boolean mask of all positions; rotary frequencies (a few kB) are left out."""
    return model.max_position_embeddings**2 if model.family.causal_mask_buffer else 0


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


@lru_cache(maxsize=256)
def trained_weights(model: ModelSpec, dtype: DType) -> tuple[TensorGroup, ...]:
    """Every parameter as a trained tensor: full fine-tuning."""
    return tuple(
        TensorGroup(w.module, w.shape, w.count, dtype, is_embedding=w.role is Role.EMBEDDING) for w in weights_of(model)
    )


@lru_cache(maxsize=256)
def checkpoint_bytes(model: ModelSpec, dtype: DType) -> int:
    """Size on disk of the whole model in safetensors files, as save_pretrained writes it."""
    tensors = sum(weight.count for weight in weights_of(model))
    return num_parameters(model) * dtype.bytes + tensors * HEADER_BYTES_PER_TENSOR
