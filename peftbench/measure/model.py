"""Build the real model of a case with random weights: transformers loads it, bitsandbytes quantizes it, PEFT adapts it.

Memory and time do not depend on what the weights are, so nothing is fetched from anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import torch
from torch import nn

from peftbench.errors import MeasureError
from peftbench.measure.nf4_guard import keep_weights_as_they_are
from peftbench.spec.adapter import AdapterSpec
from peftbench.spec.adapter_options import adapter_options
from peftbench.spec.case import Case
from peftbench.spec.dtype import DType
from peftbench.spec.quantization import QuantizationSpec
from peftbench.spec.training import TrainingSpec

BITSANDBYTES_BLOCKSIZE = 64
"""BitsAndBytesConfig has no field for it."""
INITIALIZER_RANGE = 0.02


def build(case: Case) -> Any:
    """The model on its device, with its adapter; raises MeasureError for what the libraries cannot do for real."""
    model = _load(case)
    keep_weights_as_they_are(model)
    if case.recipe.quantization:
        _prepare(model, case)
    return _adapted(model, case) if case.recipe.adapter else model


def torch_dtype(dtype: DType) -> torch.dtype:
    """The torch dtype of that name."""
    found: torch.dtype = getattr(torch, dtype.value)
    return found


def causal_lm_of(model: Any) -> Any:
    """transformers' model, out of PEFT's wrapper where there is one."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def count_parameters(case: Case) -> int:
    """Of the base model, before it is quantized."""
    return sum(parameter.numel() for parameter in _on_meta(case).parameters())


# ── transformers and bitsandbytes ───────────────────────────────────────────────────────────────────────────────────


def _load(case: Case) -> Any:
    """As from_pretrained loads a checkpoint, from tensors instead of files."""
    shapes = _on_meta(case)
    weights = dict(_random_weights(shapes, case))
    quantization = case.recipe.quantization
    more = {"quantization_config": _bitsandbytes(quantization)} if quantization else {}
    device = {"": 0 if case.device == "cuda" else "cpu"}
    return type(shapes).from_pretrained(
        None, config=shapes.config, state_dict=weights, dtype=torch_dtype(case.recipe.dtype),
        attn_implementation=_attention(case), device_map=device, **more,
    )  # fmt: skip


def _on_meta(case: Case) -> Any:
    """The model's tensors without their memory."""
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    given = json.loads(case.config)
    given.pop("quantization_config", None)  # the recipe decides how the weights are stored
    config = CONFIG_MAPPING[given.pop("model_type")].from_dict(given)
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(
            config, dtype=torch_dtype(case.recipe.dtype), attn_implementation=_attention(case)
        )
    model.tie_weights()
    return model


def _attention(case: Case) -> str | None:
    """`sdpa` is what transformers chooses by itself where a model has it."""
    return None if case.recipe.attention == "sdpa" else case.recipe.attention


def _random_weights(model: nn.Module, case: Case) -> Iterator[tuple[str, torch.Tensor]]:
    """A tensor for each weight. For a card they are views of one block: it copies them, and a machine with less memory
    than the card can then fill it."""
    generator = torch.Generator().manual_seed(case.seed)
    named = [(name, tensor) for name, tensor in model.named_parameters()]
    block = None
    if case.device == "cuda":
        largest = max(tensor.numel() for _, tensor in named)
        block = torch.empty(largest, dtype=torch_dtype(case.recipe.dtype))
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
    from transformers import BitsAndBytesConfig

    if quantization.quant_type == "gptq":
        raise MeasureError("a GPTQ checkpoint cannot be made from random weights.", "Use quant_type: nf4.")
    if not quantization.four_bit:
        return BitsAndBytesConfig(load_in_8bit=True)
    if quantization.blocksize != BITSANDBYTES_BLOCKSIZE:
        what = f"transformers loads 4-bit weights in blocks of {BITSANDBYTES_BLOCKSIZE} only."
        raise MeasureError(what, "Leave out blocksize.")
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantization.quant_type,
        bnb_4bit_use_double_quant=quantization.double_quant,
        bnb_4bit_compute_dtype=torch_dtype(quantization.compute_dtype),
    )


def _prepare(model: Any, case: Case) -> None:
    """prepare_model_for_kbit_training, or only its float32 norms, or nothing but freezing."""
    from peft import prepare_model_for_kbit_training

    quantization = case.recipe.quantization
    assert quantization is not None
    if quantization.upcast_unquantized:
        prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
        return
    model.requires_grad_(False)
    if quantization.upcast_norms:
        for module in model.modules():
            if "norm" in type(module).__name__.lower():
                module.float()


# ── PEFT ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _adapted(model: Any, case: Case) -> Any:
    from peft import get_peft_model

    adapter = case.recipe.adapter
    assert adapter is not None
    config = peft_config(adapter, trained=isinstance(case.recipe, TrainingSpec))
    base = {id(parameter) for parameter in model.parameters()}
    torch.manual_seed(case.seed)
    adapted = get_peft_model(model, config, autocast_adapter_dtype=adapter.dtype is DType.FLOAT32)
    if adapter.dtype is not DType.FLOAT32:
        for parameter in adapted.parameters():  # on a quantized base PEFT makes them in float32 whatever is asked
            if id(parameter) not in base and parameter.is_floating_point():
                parameter.data = parameter.data.to(torch_dtype(adapter.dtype))
    if not isinstance(case.recipe, TrainingSpec):
        adapted.requires_grad_(False)
    return adapted


def peft_config(adapter: AdapterSpec, trained: bool) -> Any:
    """PEFT's configuration of this adapter for a causal language model."""
    classes: Any = import_module("peft.mapping").PEFT_TYPE_TO_CONFIG_MAPPING
    options = adapter_options(adapter)
    kind = options.pop("peft_type")
    if kind not in classes:
        raise MeasureError(f"the installed PEFT has no type {kind}.", "Upgrade it: pip install --upgrade peft.")
    return classes[kind](**options, task_type="CAUSAL_LM", inference_mode=not trained)
