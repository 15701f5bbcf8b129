"""How far quantized or cast weights are from those that they were made of, matrix by matrix."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from peftbench.measure.child.quantize import quantizable, quantized_layers, written_out
from peftbench.records.comparison import LayerError

EXACT_DB = 300.0
"""SQNR that stands for no error at all: more than float64 can tell."""


def layer_errors(model: nn.Module, reference: nn.Module) -> tuple[LayerError, ...]:
    """The error of every matrix that can be quantized. Neither model has an adapter."""
    quantized = quantized_layers(model)
    found = []
    for name, layer in quantizable(reference).items():
        if name in quantized:
            weight = written_out(quantized[name])
        else:
            own: Any = model.get_submodule(name)
            weight = own.weight.float()
        found.append(layer_error(name, weight, layer.weight))
    return tuple(found)


def layer_error(name: str, weight: torch.Tensor, original: torch.Tensor) -> LayerError:
    """sqrt(mean((w' - w)²) / mean(w²)), and the same in decibel; sums in float64."""
    power = float(original.double().square().mean())
    noise = float((weight.double() - original.double()).square().mean())
    if not noise:
        return LayerError(name=name, relative_rmse=0.0, sqnr_db=EXACT_DB)
    return LayerError(name=name, relative_rmse=math.sqrt(noise / power), sqnr_db=10 * math.log10(power / noise))
