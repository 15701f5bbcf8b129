"""Build a real model with random weights: transformers loads it, bitsandbytes quantizes it, PEFT adapts it.

Memory and time do not depend on what the weights are, so nothing is fetched from anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from peftbench.base.errors import MeasureError
from peftbench.inputs.case import Case
from peftbench.inputs.recipe import AdapterSpec, DType, QuantizationSpec, TrainingSpec
from peftbench.libraries.adapter import add_adapter
from peftbench.libraries.model import (
    base_model,
    bitsandbytes_config,
    count_parameters,
    model_config,
    prepare_for_training,
    torch_dtype,
)
from peftbench.measure.child.nf4_guard import keep_weights_as_they_are

BITSANDBYTES_BLOCKSIZE = 64
"""BitsAndBytesConfig has no field for it."""
INITIALIZER_RANGE = 0.02


@dataclass(frozen=True, kw_only=True)
class BaseWeights:
    """What a base model is made from: equal ones have equal weights."""

    config: str
    """Its config.json, as text."""
    dtype: DType
    quantization: QuantizationSpec | None
    attention: str = "sdpa"
    seed: int
    device: str
    moved: bool = False
    """Whether it is loaded on the CPU and moved to its device then."""


def build(case: Case) -> Any:
    """The model on its device, with its adapter; raises MeasureError for what the libraries cannot do for real."""
    base, recipe = base_weights(case), case.recipe
    model = load(base, random_weights(base))
    if recipe.quantization:
        prepare_for_training(model, recipe.quantization)
    return adapted(model, recipe.adapter, case.seed, isinstance(recipe, TrainingSpec)) if recipe.adapter else model


def parameters_of(base: BaseWeights) -> int:
    """Parameters of the base model, before it is quantized."""
    return count_parameters(_on_meta(base))


def base_weights(case: Case) -> BaseWeights:
    """What the model of a case is made from."""
    recipe = case.recipe
    return BaseWeights(
        config=case.config, dtype=recipe.dtype, quantization=recipe.quantization, attention=recipe.attention,
        seed=case.seed, device=case.device, moved=isinstance(recipe, TrainingSpec) and not recipe.loads_on_card,
    )  # fmt: skip


# ── transformers and bitsandbytes ───────────────────────────────────────────────────────────────────────────────────


def load(base: BaseWeights, weights: dict[str, torch.Tensor]) -> Any:
    """As from_pretrained loads a checkpoint, from tensors instead of files; the model may keep these very tensors.
    Raises MeasureError for what the libraries cannot store so."""
    shapes, quantization = _on_meta(base), base.quantization
    more = {"quantization_config": _bitsandbytes(quantization)} if quantization else {}
    device = 0 if base.device == "cuda" else "cpu"
    model = type(shapes).from_pretrained(
        None, config=shapes.config, state_dict=weights, dtype=torch_dtype(base.dtype),
        attn_implementation=None if base.attention == "sdpa" else base.attention,
        device_map={"": "cpu" if base.moved else device}, **more,
    )  # fmt: skip
    if base.moved:
        model.to(device)
    keep_weights_as_they_are(model)
    return model


def _on_meta(base: BaseWeights) -> Any:
    """The model's tensors without their memory."""
    return base_model(model_config(json.loads(base.config)), base.dtype, base.attention)


def random_weights(base: BaseWeights) -> dict[str, torch.Tensor]:
    """A checkpoint: a tensor for each name. For a card they are views of one block: it copies them, and a machine with
    less memory than the card can then fill it."""
    return dict(_random_weights(_on_meta(base), base))


def _random_weights(model: nn.Module, base: BaseWeights) -> Iterator[tuple[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(base.seed)
    named = [(name, tensor) for name, tensor in model.named_parameters()]
    block = None
    if base.device == "cuda":
        largest = max(tensor.numel() for _, tensor in named)
        block = torch.empty(largest, dtype=torch_dtype(base.dtype))
        block.normal_(std=INITIALIZER_RANGE, generator=generator)
    for name, tensor in named:
        if tensor.dim() < 2:
            yield name, torch.full(tensor.shape, 0.0 if name.endswith("bias") else 1.0, dtype=tensor.dtype)
        elif block is not None:
            yield name, block[: tensor.numel()].view(tensor.shape)
        else:
            made = torch.empty(tensor.shape, dtype=tensor.dtype)
            yield name, made.normal_(std=INITIALIZER_RANGE, generator=generator)


def _bitsandbytes(quantization: QuantizationSpec) -> Any:
    config = bitsandbytes_config(quantization)
    if quantization.four_bit and quantization.blocksize != BITSANDBYTES_BLOCKSIZE:
        what = f"transformers loads 4-bit weights in blocks of {BITSANDBYTES_BLOCKSIZE} only."
        raise MeasureError(what, "Leave out blocksize.")
    return config


# ── PEFT ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def adapted(model: Any, adapter: AdapterSpec, seed: int, trained: bool) -> Any:
    """The model in PEFT's wrapper, with PEFT's own initialization; all of it is frozen unless it is to be trained."""
    torch.manual_seed(seed)
    found = add_adapter(model, adapter, trained)
    if not trained:
        found.requires_grad_(False)
    return found
