"""What both tiers ask of torch, transformers and bitsandbytes: a config, a base model, how it is quantized."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from peftbench.base.errors import did_you_mean
from peftbench.inputs.recipe import DType, QuantizationSpec, TrainingSpec
from peftbench.libraries.refusal import Refused, in_a_line
from peftbench.libraries.versions import newer_transformers

OTHER_INPUTS = {
    "git": "the pixels of an image",
    "gemma4_assistant": "keys and values of the model that it assists",
    "gemma4_unified_assistant": "keys and values of the model that it assists",
}


def torch_dtype(dtype: DType) -> torch.dtype:
    """The torch dtype of that name."""
    found: torch.dtype = getattr(torch, dtype.value)
    return found


def autocast_dtype(recipe: TrainingSpec, has_bfloat16: bool) -> torch.dtype | None:
    """What the forward pass computes in where the recipe has autocast; `has_bfloat16` is the device's."""
    if not recipe.autocast:
        return None
    return torch_dtype(recipe.computes_in(has_bfloat16))


def causal_lm_of(model: Any) -> Any:
    """transformers' model, out of PEFT's wrapper where there is one."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def model_config(given: Mapping[str, Any]) -> Any:
    """transformers' configuration, as from_pretrained reads a config.json. Raises Refused where it will not have it.

    The recipe decides how weights are stored, so a quantization_config is left out.
    """
    values = {key: value for key, value in given.items() if key not in ("quantization_config", "model_type")}
    kind = _config_class(str(given.get("model_type", "")))
    decode = getattr(kind, "_decode_special_floats", dict)  # {"__float__": "Infinity"}
    try:
        return kind.from_dict(decode(values))
    except Exception as error:  # a config can be wrong in any way
        raise Refused(f"transformers refuses the config.json: {in_a_line(error)}", "Correct it there.") from error


def _config_class(model_type: str) -> Any:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if model_type in OTHER_INPUTS:
        what = f"{model_type} is not run on tokens alone: it takes {OTHER_INPUTS[model_type]}."
        raise Refused(what, "Leave out --dry-run, or pass the config.json of a text model.")
    if model_type not in CONFIG_MAPPING:
        what = f"the installed transformers has no model of type {model_type or '(none)'}."
        near = newer_transformers(model_type) or did_you_mean(model_type, list(CONFIG_MAPPING))
        raise Refused(what, near or "Its config.json needs another model_type.")
    return CONFIG_MAPPING[model_type]


def base_model(config: Any, dtype: DType, attention: str, kind: Any = None) -> Any:
    """The model on torch's meta device, where tensors have a shape and no data. Raises Refused.

    `kind` is transformers' class; None: its causal language model. `sdpa` is what transformers chooses by itself where
    a model has it.
    """
    from transformers import AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    options = {"dtype": torch_dtype(dtype), "attn_implementation": None if attention == "sdpa" else attention}
    if kind and kind.config_class is config.sub_configs.get("text_config"):
        config = config.get_text_config()
    make = kind._from_config if kind else AutoModelForCausalLM.from_config
    try:
        with no_init_weights(), torch.device("meta"):
            model: Any = make(config, **options)
    except Exception as error:  # a class can refuse its config in any way
        what = f"transformers cannot build {config.model_type}: {in_a_line(error)}"
        raise Refused(what, "Correct its config.json, or install what it asks for.") from error
    model.tie_weights()
    return model


def count_parameters(model: nn.Module) -> int:
    """Parameters of the model; call it before the model is quantized."""
    return sum(parameter.numel() for parameter in model.parameters())


def bitsandbytes_config(quantization: QuantizationSpec) -> Any:
    """transformers' BitsAndBytesConfig, which has no field for the block size. Raises Refused for others' weights."""
    from transformers import BitsAndBytesConfig

    if not quantization.scheme.built:
        stored = "a checkpoint" if quantization.scheme.checkpoint else "a model"
        what = f"{stored} of {quantization.scheme.library} can be neither dry-run nor measured."
        raise Refused(what, "Choose quant_type nf4, or only estimate it.")
    if not quantization.four_bit:
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantization.quant_type,
        bnb_4bit_use_double_quant=quantization.double_quant,
        bnb_4bit_compute_dtype=torch_dtype(quantization.compute_dtype),
    )


def read_weights(model: nn.Module) -> tuple[str, ...]:
    """Names of linear layers whose weight the model's own code takes as a matrix: those of state-space layers.

    bitsandbytes stores codes there, on which such a model stops; llm_int8_skip_modules leaves these layers out.
    """
    found: set[str] = set()
    for module in {type(module): module for module in model.modules()}.values():
        if type(module).__module__.startswith("transformers.models."):
            read = _READ.findall(inspect.getsource(type(module)))
            found.update(name for name in read if isinstance(getattr(module, name, None), nn.Linear))
    return tuple(sorted(found))


_READ = re.compile(
    r"(?<!isinstance\()self\.(\w+)\.weight\b(?!\[|\.(?:dtype|device|shape|data_ptr|ndim)|,? *(?:is\b|:|=[^=]))"
)
"""A weight that is read as a matrix, and not asked for its dtype."""


def prepare_for_training(model: nn.Module, quantization: QuantizationSpec) -> None:
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
