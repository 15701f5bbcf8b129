"""The adapter of a comparison: trained once on the reference, put on every variant, and merged where that is asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from peftbench.base.errors import MeasureError
from peftbench.inputs.comparison import Variant
from peftbench.inputs.recipe import AdapterSpec
from peftbench.libraries.adapter import add_adapter
from peftbench.measure.child.nf4_guard import refuse_packed
from peftbench.measure.child.quantize import copy_of, quantizable, quantize_layers, quantized_layers, write_out

LEARNING_RATE = 1e-3


class Adapter(NamedTuple):
    """Weights of an adapter, as PEFT would save them."""

    spec: AdapterSpec
    state: dict[str, torch.Tensor]
    losses: tuple[float, ...] = ()
    """The loss of each step that it was trained for."""


def train_adapter(
    reference: Any, spec: AdapterSpec, tokens: torch.Tensor, steps: int, length: int, seed: int,
    progress: Callable[[], None],
) -> Adapter:  # fmt: skip
    """AdamW over consecutive sequences of that length, one a step, from the front again where the text ends.
    `progress` is called after each step. The reference's weights stay as they are."""
    torch.manual_seed(seed)
    model = new_adapter(copy_of(reference, None, own=True), spec).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE)
    rows = tokens[: len(tokens) // length * length].view(-1, length)
    losses = []
    for step in range(steps):
        batch = rows[step % len(rows)][None].to(next(reference.parameters()).device)
        loss = model(input_ids=batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        progress()
    return Adapter(spec, state_of(model), tuple(losses))


def state_of(model: Any) -> dict[str, torch.Tensor]:
    """What PEFT saves of an adapter, copied."""
    from peft import get_peft_model_state_dict

    return {name: tensor.detach().clone() for name, tensor in get_peft_model_state_dict(model).items()}


def attach(model: Any, adapter: Adapter) -> Any:
    """PEFT's model with these weights, frozen. Raises MeasureError as new_adapter, and for weights of another shape."""
    from peft import set_peft_model_state_dict

    adapted = new_adapter(model, adapter.spec, trained=False)
    loaded: Any = set_peft_model_state_dict(adapted, adapter.state)
    if loaded.unexpected_keys and not adapted.active_peft_config.is_prompt_learning:  # PEFT loads those apart
        raise MeasureError(f"{adapter.spec.peft_type} has no place for {loaded.unexpected_keys[0]} on this base.")
    return adapted.eval().requires_grad_(False)


def new_adapter(model: Any, spec: AdapterSpec, trained: bool = True) -> Any:
    """PEFT's model with an adapter as it begins, in place. Raises MeasureError where PEFT would take the codes of
    quantized weights for weights: it chooses its layers by what the model says of itself, not by what they are."""
    kinds = {type(layer).__name__ for layer in quantized_layers(model).values()}
    for kind, said in (("Linear4bit", "is_loaded_in_4bit"), ("Linear8bitLt", "is_loaded_in_8bit")):
        if kind in kinds and not getattr(model, said, False):
            what = f"the model has layers of {kind} and does not say so: PEFT would use its layers for plain weights."
            raise MeasureError(what, f"Set model.{said} = True.")
    return add_adapter(model, spec, trained)


# ── variants ────────────────────────────────────────────────────────────────────────────────────────────────────────


def build_variant(reference: Any, variant: Variant, adapter: Adapter | None) -> Any:
    """The variant, on the device of the reference, frozen. Raises MeasureError, or whatever PEFT raises."""
    quantization = variant.quantization
    if adapter is None:
        return copy_of(reference, variant.dtype, quantization)
    if variant.route == "requantized":
        assert quantization is not None
        model = merge(attach(copy_of(reference, variant.dtype, own=True), adapter))
        quantize_layers(model, quantizable(model), quantization, variant.dtype)
        return model
    base = copy_of(reference, variant.dtype, quantization, own=True)
    if variant.route == "dequantized":
        return merge(attach(write_out(base, variant.dtype), adapter))
    model = attach(base, adapter)
    for _ in range(variant.round_trips):
        refuse_packed_layers(model)
        model.merge_adapter()
        model.unmerge_adapter()
    return merge(model) if variant.route == "merged" else model


def merge(adapted: Any) -> Any:
    """The base with the adapter in its weights. Raises MeasureError where its 4-bit weights were packed."""
    refuse_packed_layers(adapted)
    with torch.no_grad():
        merged: Any = adapted.merge_and_unload()
    return merged.eval().requires_grad_(False)


def refuse_packed_layers(model: Any) -> None:
    """Raise MeasureError if a forward pass has packed any 4-bit layer."""
    for layer in quantized_layers(model).values():
        if type(layer).__name__ == "Linear4bit":
            refuse_packed(layer)
