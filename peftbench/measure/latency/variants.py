"""Build the variants of a latency comparison from the same random weights, frozen alike, so that only routes differ.

Base and dynamic variants are made of the very same layers: PEFT wraps a layer and leaves it as it is. A merged variant
changes weights and is loaded anew.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from peftbench.base.errors import MeasureError
from peftbench.inputs.comparison import LatencyCase, Variant
from peftbench.inputs.recipe import AdapterSpec, DType
from peftbench.libraries.adapter import adapter_options, cast_adapter, parameter_ids, peft_config
from peftbench.measure.child.model import BaseWeights, adapted, load, random_weights
from peftbench.measure.child.steps import now_s
from peftbench.records.environment import is_out_of_memory

NOISE = 0.01
"""Spread of what is added to every adapter weight: lora_B begins at zero, and a merge of zeros proves nothing."""


@dataclass(frozen=True)
class Built:
    """A variant that is ready to run."""

    variant: Variant
    model: Any
    load_s: float
    """from_pretrained, of tensors in memory, and attaching its adapters."""
    merge_s: float | None = None


def build_variants(case: LatencyCase) -> Iterator[Built]:
    """One after the other. Raises MeasureError for a merge that there is none of, and where there is no variant."""
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)  # a line for each int8 layer it runs
    if not case.variants:
        raise MeasureError("there is nothing to compare.", "Name a case.")
    shared: dict[BaseWeights, tuple[Any, float]] = {}
    for variant in case.variants:
        base = base_weights(case, variant)
        if variant.route == "merged":
            yield _merged(base, variant)
            continue
        if base not in shared:
            shared[base] = loaded(base)
        yield _unmerged(*shared[base], variant, case.seed)


def base_weights(case: LatencyCase, variant: Variant) -> BaseWeights:
    """What the variant begins with; equal for those that can be compared."""
    return BaseWeights(
        config=case.config, dtype=variant.dtype, quantization=variant.quantization, seed=case.seed, device=case.device
    )


def loaded(base: BaseWeights) -> tuple[Any, float]:
    """A model of its own, frozen and in eval mode, and the seconds that loading took."""
    weights = random_weights(base)  # made anew each time, as the model may keep these tensors
    began_s = now_s(base.device)
    model = load(base, weights)
    return frozen(model), now_s(base.device) - began_s


def frozen(model: Any) -> Any:
    """The same model, to be run only. Every variant has to pass here: where a weight requires a gradient torch.matmul
    takes another path, several times faster for the head in bfloat16 on a CPU."""
    return model.requires_grad_(False).eval()


def with_adapters(model: Any, adapter: AdapterSpec, count: int, seed: int) -> Any:
    """PEFT's wrapper with so many adapters, the first active, each with random weights of its own.
    Raises MeasureError for those that lengthen the prompt."""
    before = parameter_ids(model)
    wrapped = adapted(model, adapter, seed, trained=False)
    if wrapped.active_peft_config.is_prompt_learning:
        what = f"{adapter.peft_type} lengthens the prompt, so its passes are not those of the base."
        raise MeasureError(what, "Compare an adapter inside of the layers, as in method: lora.")
    _disturb(wrapped, before, seed)
    for number in range(1, count):
        before = parameter_ids(wrapped)
        torch.manual_seed(seed + number)
        config, autocast = peft_config(adapter_options(adapter), trained=False), adapter.dtype is DType.FLOAT32
        wrapped.add_adapter(f"adapter-{number + 1}", config, autocast_adapter_dtype=autocast)
        cast_adapter(wrapped, before, adapter.dtype)
        _disturb(wrapped, before, seed + number)
    return frozen(wrapped)


def refuse_unlike(built: list[Built]) -> None:
    """Raises MeasureError where a variant would run as another kind of model than the others: it trains."""
    for each in built:
        if each.model.training or any(parameter.requires_grad for parameter in each.model.parameters()):
            what = f"{each.variant.name} is not frozen, which changes what its arithmetic takes."
            raise MeasureError(what, "Freeze every variant: model.requires_grad_(False).eval().")


def _unmerged(model: Any, load_s: float, variant: Variant, seed: int) -> Built:
    if variant.adapter is None:
        return Built(variant, model, load_s)
    device = model.device.type
    began_s = now_s(device)
    layers = {id(module): module for module in model.modules() if not list(module.children())}
    beside = copy.deepcopy(model, layers)  # a second model around the same layers
    wrapped = with_adapters(beside, variant.adapter, variant.adapters, seed)
    return Built(variant, wrapped, load_s + now_s(device) - began_s)


def _merged(base: BaseWeights, variant: Variant) -> Built:
    assert variant.adapter is not None
    model, load_s = loaded(base)
    began_s = now_s(base.device)
    wrapped = with_adapters(model, variant.adapter, 1, base.seed)
    attached_s = now_s(base.device)
    merged = _merge(wrapped, variant)
    return Built(variant, frozen(merged), load_s + attached_s - began_s, now_s(base.device) - attached_s)


def _merge(wrapped: Any, variant: Variant) -> nn.Module:
    """PEFT's merge, which says in many ways that there is none. Raises MeasureError."""
    assert variant.adapter is not None
    try:
        merged: nn.Module = wrapped.merge_and_unload()
    except (ValueError, NotImplementedError, AttributeError, TypeError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        stored = variant.quantization.quant_type if variant.quantization else variant.dtype.value
        what = f"{variant.name}: PEFT cannot merge {variant.adapter.peft_type} into {stored} weights ({error})."
        raise MeasureError(what, "Leave this case out, or merge LoRA.") from None
    return merged


def _disturb(model: Any, before: set[int], seed: int) -> None:
    """Noise on every parameter that was not there before, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if id(parameter) not in before and parameter.is_floating_point():
            noise = torch.randn(parameter.shape, generator=generator) * NOISE
            parameter.data += noise.to(parameter)
