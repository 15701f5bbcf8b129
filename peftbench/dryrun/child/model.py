"""Build the real model of transformers, quantized by the real libraries, without any memory.

Everything is built on torch's meta device, where tensors have a shape and no data; `materialize.py` then describes
the same tensors on the card, where `adapt.py` puts an adapter on them.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import torch
from torch import nn

from peftbench.base.errors import did_you_mean
from peftbench.dryrun.child.materialize import is_quantized
from peftbench.dryrun.trace.trace import Refused, in_a_line
from peftbench.dryrun.workload import DEPTH_KEYS, Workload
from peftbench.inputs.recipe.dtype import DType
from peftbench.inputs.recipe.quantization import QuantizationSpec


class BuiltModel(NamedTuple):
    """A base model on the meta device."""

    model: nn.Module
    num_parameters: int
    """Before it is quantized."""


def torch_dtype(dtype: DType) -> torch.dtype:
    """The torch dtype of that name."""
    found: torch.dtype = getattr(torch, dtype.value)
    return found


def build(workload: Workload) -> BuiltModel:
    """Without its adapter. Raises Refused where transformers will not have the config."""
    recipe = workload.recipe
    config = _config(workload)
    model = _base_model(config, recipe.dtype, recipe.attention)
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    if recipe.quantization:
        _quantize(model, recipe.quantization, torch_dtype(recipe.dtype))
        _prepare(model, recipe.quantization)
    return BuiltModel(model, num_parameters)


def count_parameters(workload: Workload) -> int:
    """Parameters of the base model, built for its shapes only."""
    model = _base_model(_config(workload), workload.recipe.dtype, workload.recipe.attention)
    return sum(parameter.numel() for parameter in model.parameters())


def _config(workload: Workload) -> Any:
    """The configuration as from_pretrained reads a config.json."""
    given = json.loads(workload.config)
    given.pop("quantization_config", None)  # the recipe decides how the weights are stored
    kind = _config_class(str(given.pop("model_type", "")))
    if workload.layers is not None:
        _keep_layers(given, workload.layers)
    decode = getattr(kind, "_decode_special_floats", dict)  # {"__float__": "Infinity"}
    try:
        return kind.from_dict(decode(given))
    except Exception as error:  # a config can be wrong in any way
        raise Refused(f"transformers refuses the config.json: {in_a_line(error)}", "Correct it there.") from error


OTHER_INPUTS = {
    "git": "the pixels of an image",
    "gemma4_assistant": "keys and values of the model that it assists",
    "gemma4_unified_assistant": "keys and values of the model that it assists",
}


def _config_class(model_type: str) -> Any:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as KNOWN

    if model_type in OTHER_INPUTS:
        what = f"{model_type} is not run on tokens alone: it takes {OTHER_INPUTS[model_type]}."
        raise Refused(what, "Leave out --dry-run, or pass the config.json of a text model.")
    if model_type not in KNOWN:
        what = f"the installed transformers has no causal language model of type {model_type or '(none)'}."
        raise Refused(what, did_you_mean(model_type, list(KNOWN)) or "Its config.json needs another model_type.")
    return CONFIG_MAPPING[model_type]


def _keep_layers(given: dict[str, Any], layers: int) -> None:
    """Cut the depth, and with it what has an entry for each layer."""
    name = next((name for name in DEPTH_KEYS if name in given), DEPTH_KEYS[0])
    depth, given[name] = given.get(name), layers
    for key, value in given.items():
        if isinstance(value, list) and len(value) == depth:
            given[key] = value[:layers]
    if given.get("per_layer_config"):
        kept = given["per_layer_config"].items()
        given["per_layer_config"] = {index: value for index, value in kept if int(index) < layers}


def _base_model(config: Any, dtype: DType, attention: str) -> Any:
    """`sdpa` is what transformers chooses by itself where a model has it; flash attention runs as SDPA's flash."""
    from transformers import AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    implementation = "eager" if attention == "eager" else None
    try:
        with no_init_weights(), torch.device("meta"):
            model = AutoModelForCausalLM.from_config(
                config, dtype=torch_dtype(dtype), attn_implementation=implementation
            )
    except Exception as error:  # a class can refuse its config in any way
        what = f"transformers cannot build {config.model_type}: {in_a_line(error)}"
        raise Refused(what, "Correct its config.json, or install what it asks for.") from error
    model.tie_weights()
    if attention == "flash_attention_2":  # asked for afterwards, since it would be looked for
        model.config._attn_implementation_internal = attention
    return model


def _quantize(model: Any, quantization: QuantizationSpec, dtype: torch.dtype) -> None:
    """Exchange the linear layers as `from_pretrained(quantization_config=…)` does."""
    from transformers import BitsAndBytesConfig
    from transformers.integrations.bitsandbytes import replace_with_bnb_linear
    from transformers.quantizers.base import HfQuantizer

    if quantization.scheme.checkpoint:
        what = f"a {quantization.scheme.library} checkpoint cannot be dry-run."
        raise Refused(what, "Use --quant-type nf4, or leave out --dry-run.")
    if quantization.four_bit:
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=quantization.quant_type,
            bnb_4bit_use_double_quant=quantization.double_quant,
            bnb_4bit_compute_dtype=torch_dtype(quantization.compute_dtype),
        )
    else:
        config = BitsAndBytesConfig(load_in_8bit=True)
    kept = HfQuantizer.get_modules_to_not_convert(model, None, model._keep_in_fp32_modules)
    replace_with_bnb_linear(model, modules_to_not_convert=kept, quantization_config=config)
    _load_in(model, dtype if quantization.four_bit else torch.int8, dtype)
    model.is_loaded_in_4bit, model.is_loaded_in_8bit = quantization.four_bit, not quantization.four_bit
    model.is_quantized = True


def _load_in(model: nn.Module, weight: torch.dtype, bias: torch.dtype) -> None:
    """The exchanged layers are made in float32, and their weights are read in the checkpoint's type."""
    for module in model.modules():
        if is_quantized(getattr(module, "weight", None)):
            module.weight.data = module.weight.data.to(weight)
            if module.bias is not None:
                module.bias.data = module.bias.data.to(bias)


def _prepare(model: nn.Module, quantization: QuantizationSpec) -> None:
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
