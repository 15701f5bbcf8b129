"""Build a real model with random weights: transformers loads it, bitsandbytes quantizes it, PEFT adapts it.

Memory and time do not depend on what the weights are, so nothing is fetched from anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import nn

from peftbench.base.errors import MeasureError
from peftbench.inputs.case import Case
from peftbench.inputs.recipe.adapter import AdapterSpec
from peftbench.inputs.recipe.dtype import DType
from peftbench.inputs.recipe.peft_config import adapter_options
from peftbench.inputs.recipe.quantization import QuantizationSpec
from peftbench.inputs.recipe.training import TrainingSpec
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


def build(case: Case) -> Any:
    """The model on its device, with its adapter; raises MeasureError for what the libraries cannot do for real."""
    base, recipe = _base_weights(case), case.recipe
    model = load(base, random_weights(base))
    if recipe.quantization:
        _prepare(model, recipe.quantization)
    return adapted(model, recipe.adapter, case.seed, isinstance(recipe, TrainingSpec)) if recipe.adapter else model


def torch_dtype(dtype: DType) -> torch.dtype:
    """The torch dtype of that name."""
    found: torch.dtype = getattr(torch, dtype.value)
    return found


def causal_lm_of(model: Any) -> Any:
    """transformers' model, out of PEFT's wrapper where there is one."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def count_parameters(case: Case) -> int:
    """Parameters of the base model before it is quantized."""
    return count_parameters_of(_base_weights(case))


def count_parameters_of(base: BaseWeights) -> int:
    """Parameters of the base model before it is quantized."""
    return sum(parameter.numel() for parameter in _on_meta(base).parameters())


def _base_weights(case: Case) -> BaseWeights:
    recipe = case.recipe
    return BaseWeights(
        config=case.config, dtype=recipe.dtype, quantization=recipe.quantization, attention=recipe.attention,
        seed=case.seed, device=case.device,
    )  # fmt: skip


# ── transformers and bitsandbytes ───────────────────────────────────────────────────────────────────────────────────


def load(base: BaseWeights, weights: dict[str, torch.Tensor]) -> Any:
    """As from_pretrained loads a checkpoint, from tensors instead of files; the model may keep these very tensors.
    Raises MeasureError for what the libraries cannot store so."""
    shapes, quantization = _on_meta(base), base.quantization
    more = {"quantization_config": _bitsandbytes(quantization)} if quantization else {}
    device = {"": 0 if base.device == "cuda" else "cpu"}
    model = type(shapes).from_pretrained(
        None, config=shapes.config, state_dict=weights, dtype=torch_dtype(base.dtype),
        attn_implementation=_attention(base), device_map=device, **more,
    )  # fmt: skip
    keep_weights_as_they_are(model)
    return model


def _on_meta(base: BaseWeights) -> Any:
    """The model's tensors without their memory."""
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    given = json.loads(base.config)
    given.pop("quantization_config", None)  # the recipe decides how the weights are stored
    config = CONFIG_MAPPING[given.pop("model_type")].from_dict(given)
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(
            config, dtype=torch_dtype(base.dtype), attn_implementation=_attention(base)
        )
    model.tie_weights()
    return model


def _attention(base: BaseWeights) -> str | None:
    """`sdpa` is what transformers chooses by itself where a model has it."""
    return None if base.attention == "sdpa" else base.attention


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
    from transformers import BitsAndBytesConfig

    if quantization.scheme.checkpoint:
        what = f"a {quantization.scheme.library} checkpoint cannot be made from random weights."
        raise MeasureError(what, "Use quant_type: nf4.")
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


def _prepare(model: Any, quantization: QuantizationSpec) -> None:
    """prepare_model_for_kbit_training, or only its float32 norms, or nothing but freezing."""
    from peft import prepare_model_for_kbit_training

    if quantization.upcast_unquantized:
        prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
        return
    model.requires_grad_(False)
    if quantization.upcast_norms:
        for module in model.modules():
            if "norm" in type(module).__name__.lower():
                module.float()


# ── PEFT ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def adapted(model: Any, adapter: AdapterSpec, seed: int, trained: bool) -> Any:
    """The model in PEFT's wrapper, with PEFT's own initialization; all of it is frozen unless it is to be trained."""
    from peft import get_peft_model

    config = peft_config(adapter, trained=trained)
    base = parameter_ids(model)
    torch.manual_seed(seed)
    found = get_peft_model(model, config, autocast_adapter_dtype=adapter.dtype is DType.FLOAT32)
    cast_adapter(found, base, adapter.dtype)
    if not trained:
        found.requires_grad_(False)
    return found


def parameter_ids(model: Any) -> set[int]:
    """By which the parameters that are there before an adapter are told from its own."""
    return {id(parameter) for parameter in model.parameters()}


def cast_adapter(model: Any, before: set[int], dtype: DType) -> None:
    """To what was asked, all parameters but those before: on a quantized base PEFT makes them in float32 anyway."""
    if dtype is not DType.FLOAT32:
        for parameter in model.parameters():
            if id(parameter) not in before and parameter.is_floating_point():
                parameter.data = parameter.data.to(torch_dtype(dtype))


def peft_config(adapter: AdapterSpec, trained: bool) -> Any:
    """PEFT's configuration of this adapter for a causal language model."""
    classes: Any = import_module("peft.mapping").PEFT_TYPE_TO_CONFIG_MAPPING
    options = adapter_options(adapter)
    kind = options.pop("peft_type")
    if kind not in classes:
        raise MeasureError(f"the installed PEFT has no type {kind}.", "Upgrade it: pip install --upgrade peft.")
    return classes[kind](**options, task_type="CAUSAL_LM", inference_mode=not trained)
