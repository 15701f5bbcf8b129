"""Build the real model of transformers, quantized by the real libraries, without any memory.

Everything is built on torch's meta device, where tensors have a shape and no data; `materialize.py` then describes
the same tensors on the card, where `peft_model.py` puts an adapter on them.
"""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import nn

from peftbench.dryrun.child.split_experts import with_split_experts
from peftbench.dryrun.fake.quantized import is_quantized
from peftbench.dryrun.workload import DEPTH_KEYS, Workload
from peftbench.inputs.recipe import QuantizationSpec
from peftbench.libraries.model import (
    base_model,
    bitsandbytes_config,
    count_parameters,
    model_config,
    prepare_for_training,
    read_weights,
    torch_dtype,
)  # fmt: skip
from peftbench.libraries.task import class_of, task_of


def build(workload: Workload) -> tuple[nn.Module, int]:
    """The model on the meta device, without its adapter, and its parameters before it is quantized. Raises Refused."""
    recipe = workload.recipe
    model = base_model_of(workload)
    num_parameters = count_parameters(model)
    if recipe.quantization:
        _quantize(model, recipe.quantization, torch_dtype(recipe.dtype))
        prepare_for_training(model, recipe.quantization)
    return model, num_parameters


def base_model_of(workload: Workload) -> Any:
    """The model before it is quantized. Raises Refused where transformers will not have the config.

    Flash attention runs as SDPA's flash: it is set afterwards, since transformers would look for the package.
    """
    given, attention = json.loads(workload.config), workload.recipe.attention
    if workload.layers is not None:
        _keep_layers(given, workload.layers)
    flash = attention == "flash_attention_2"
    task = task_of(given, workload.task_spec.task_type)
    config = _config_for(task, model_config(given), workload)
    model = base_model(config, workload.recipe.dtype, "sdpa" if flash else attention, class_of(given, task))
    if flash:
        model.config._attn_implementation_internal = attention
    return with_split_experts(model, workload)


def _config_for(task: str, config: Any, workload: Workload) -> Any:
    """With the classes of the task, and tokens that its class asks for, whichever they are."""
    text = config.get_text_config(decoder=True)
    if task in ("seq-cls", "token-cls"):
        config.num_labels = workload.task_spec.num_labels
        text.pad_token_id = text.pad_token_id or 0  # decoders ask where a sequence ends
    if config.is_encoder_decoder and getattr(config, "decoder_start_token_id", None) is None:
        config.decoder_start_token_id = 0
    return config


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


def _quantize(model: Any, quantization: QuantizationSpec, dtype: torch.dtype) -> None:
    """Exchange the linear layers as `from_pretrained(quantization_config=…)` does."""
    from transformers.integrations.bitsandbytes import replace_with_bnb_linear
    from transformers.quantizers.base import HfQuantizer

    config = bitsandbytes_config(quantization)
    kept = HfQuantizer.get_modules_to_not_convert(model, None, model._keep_in_fp32_modules)
    kept = [*kept, *read_weights(model)]
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
