"""Quantize a model that is in memory with bitsandbytes' own layers, and read back what they hold.

transformers does it while it loads a checkpoint, and in blocks of 64 only. Here every form of the weights is made of
the same tensors, so that nothing but their form differs.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from importlib import import_module
from typing import Any

import torch
from torch import nn

from peftbench.base.errors import MeasureError
from peftbench.inputs.recipe import DType, QuantizationSpec
from peftbench.libraries.model import torch_dtype
from peftbench.measure.child.nf4_guard import keep_weights_as_they_are, refuse_packed

INT8_THRESHOLD = 6.0
"""transformers' llm_int8_threshold: inputs beyond it are multiplied in 16 bit on a card."""


def quantizable(model: nn.Module) -> dict[str, nn.Linear]:
    """The layers that transformers quantizes, by name: all linear ones but the output head and what is tied to it."""
    from transformers.quantizers.base import get_keys_to_not_convert

    kept = tuple(get_keys_to_not_convert(model))
    return {
        name: module
        for name, module in model.named_modules()
        if type(module) is nn.Linear and not any(name == key or name.startswith(f"{key}.") for key in kept)
    }


def copy_of(
    model: Any, dtype: DType | None, quantization: QuantizationSpec | None = None, own: bool = False
) -> Any:  # fmt: skip
    """A copy in which the linear layers are quantized and all other weights have that dtype; None leaves each its own.

    Weights that stay as they are, and those that are replaced, are shared with the model, unless the copy is to have
    its `own`: PEFT merges in place, and some adapters change their base as they begin.
    """
    replaced = [layer.weight for layer in quantizable(model).values()] if quantization else []
    shared: dict[int, Any] = {id(tensor): tensor for tensor in (replaced if own else model.parameters())}
    made = copy.deepcopy(model, shared)
    if quantization:
        quantize_layers(made, quantizable(made), quantization, dtype)
    for module in made.modules():  # of buffers transformers casts none: rotary frequencies stay in float32
        for name, parameter in module.named_parameters(recurse=False):
            if dtype and parameter.is_floating_point() and parameter.dtype is not torch_dtype(dtype):
                setattr(module, name, nn.Parameter(parameter.to(torch_dtype(dtype)), requires_grad=False))
    made.tie_weights()
    return made.eval()


def quantize_layers(
    model: Any, layers: dict[str, nn.Linear], quantization: QuantizationSpec, dtype: DType | None
) -> None:
    """Put bitsandbytes' layers in the place of these, and say so where PEFT looks for it."""
    if not layers:
        raise MeasureError("the model has no linear layers that bitsandbytes could quantize.", "Choose another model.")
    for name, layer in layers.items():
        weight = layer.weight.data if dtype is None else layer.weight.data.to(torch_dtype(dtype))
        made = _four_bit(layer, weight, quantization) if quantization.four_bit else _eight_bit(layer, weight)
        if layer.bias is not None:
            made.bias = nn.Parameter(layer.bias.data, requires_grad=False)
        model.set_submodule(name, made.eval())
    keep_weights_as_they_are(model)
    model.is_loaded_in_4bit, model.is_loaded_in_8bit = quantization.four_bit, not quantization.four_bit


def _four_bit(layer: nn.Linear, weight: torch.Tensor, quantization: QuantizationSpec) -> Any:
    bitsandbytes: Any = import_module("bitsandbytes.nn")  # late: it takes seconds
    made = bitsandbytes.Linear4bit(
        layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta",
        compute_dtype=torch_dtype(quantization.compute_dtype), quant_type=quantization.quant_type,
        compress_statistics=quantization.double_quant,
    )  # fmt: skip
    codes = bitsandbytes.Params4bit(
        weight, requires_grad=False, compress_statistics=quantization.double_quant,
        quant_type=quantization.quant_type, blocksize=quantization.blocksize, module=made,
    )  # fmt: skip
    made.weight = codes.to(weight.device)  # quantizes
    return made


def _eight_bit(layer: nn.Linear, weight: torch.Tensor) -> Any:
    bitsandbytes: Any = import_module("bitsandbytes.nn")
    made = bitsandbytes.Linear8bitLt(
        layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta",
        has_fp16_weights=False, threshold=INT8_THRESHOLD,
    )  # fmt: skip
    codes = bitsandbytes.Int8Params(weight.cpu(), requires_grad=False)
    made.weight = codes.to(weight.device)  # quantizes, but only what comes from a CPU
    return made


# ── reading back ────────────────────────────────────────────────────────────────────────────────────────────────────


def quantized_layers(model: nn.Module) -> dict[str, Any]:
    """bitsandbytes' layers, by name."""
    kinds = ("Linear4bit", "Linear8bitLt")
    return {
        name: module
        for name, module in model.named_modules()
        if type(module).__name__ in kinds and type(module).__module__.startswith("bitsandbytes")
    }


def written_out(layer: Any) -> torch.Tensor:
    """[out_features, in_features], float32: the weights that the layer stands for. Raises MeasureError where it was
    packed, since bitsandbytes would return garbage."""
    functional: Any = import_module("bitsandbytes.functional")
    if type(layer).__name__ == "Linear8bitLt":
        codes, scales = _int8(layer)
        weights: torch.Tensor = functional.int8_vectorwise_dequant(codes, scales)
    else:
        refuse_packed(layer)
        weights = functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    return weights.float()


def write_out(model: Any, dtype: DType) -> Any:
    """The model with plain linear layers again, in place: the weights keep the error of their quantization."""
    for name, layer in quantized_layers(model).items():
        with torch.device("meta"):
            made = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
        made.weight = nn.Parameter(written_out(layer).to(torch_dtype(dtype)), requires_grad=False)
        made.bias = layer.bias
        model.set_submodule(name, made.eval())
    model.is_loaded_in_4bit = model.is_loaded_in_8bit = False
    return model


def bits_per_parameter(model: nn.Module) -> float | None:
    """Bits of all quantized matrices: codes, block constants and tables, each shared tensor once."""
    layers = quantized_layers(model).values()
    if not layers:
        return None
    held: dict[int, int] = {tensor.data_ptr(): tensor.nbytes for layer in layers for tensor in _tensors(layer)}
    return 8 * sum(held.values()) / _parameters(layers)


def share_not_quantized(model: nn.Module, reference: nn.Module) -> float:
    """A share of the reference's parameters: adapters do not count, and tied tensors count once."""
    return 1 - _parameters(quantized_layers(model).values()) / sum(tensor.numel() for tensor in reference.parameters())


def _parameters(layers: Iterable[Any]) -> int:
    return sum(int(layer.in_features * layer.out_features) for layer in layers)


def _tensors(layer: Any) -> Iterator[torch.Tensor]:
    if type(layer).__name__ == "Linear8bitLt":
        yield from _int8(layer)
        return
    state = layer.weight.quant_state
    yield from (layer.weight.data, state.absmax, state.code)
    if state.nested:
        yield from (state.offset, state.state2.absmax, state.state2.code)


def _int8(layer: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes and scales of the rows: they move from the weight to the layer's state in the first forward pass."""
    holder = layer.weight if layer.weight.SCB is not None else layer.state
    return layer.weight.data, holder.SCB
