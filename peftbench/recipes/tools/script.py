"""A training script for transformers and PEFT: the recipe as constants, and a short program that runs them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from string import Template

from peftbench.base.visible import visible
from peftbench.inputs.recipe import AdapterSpec, TrainingSpec
from peftbench.libraries.adapter import adapter_options
from peftbench.recipes.kinds import ATTENTION, COUNT, DTYPE, FLAG, WORD
from peftbench.recipes.rows import Found, Row, Rule, Tool, give, take
from peftbench.recipes.settings import Settings
from peftbench.recipes.tools.trainer import ARGUMENTS, bitsandbytes_settings, read_adapter, take_bitsandbytes

_SCRIPT = os.path.join(os.path.dirname(__file__), "train_script.txt")
_OWN_GPU = 'int(os.environ.get("LOCAL_RANK", "0")) if torch.cuda.is_available() else "cpu"'
_MORE = {"num_train_epochs": 1, "learning_rate": 2e-4, "logging_steps": 10, "save_strategy": "no", "report_to": []}


def _give_adapter(recipe: TrainingSpec) -> dict[str, object]:
    """PEFT's options; LoRA's alpha is twice the rank, as in the other tools' files."""
    adapter = recipe.adapter
    if adapter is None:
        return {"ADAPTER": None, "ADAPTER_DTYPE": None}
    alpha = {"lora_alpha": 2 * adapter.r} if adapter.peft_type == "lora" and adapter.r and not adapter.alpha else {}
    options = {**adapter_options(adapter), **alpha, "task_type": "CAUSAL_LM"}
    return {"ADAPTER": options, "ADAPTER_DTYPE": adapter.dtype.value}


def _take_adapter(settings: Settings, _found: Found) -> Found:
    section, dtype = settings.section("ADAPTER"), take((_ADAPTER_DTYPE,), settings)
    return {"adapter": {**asdict(read_adapter(section)), **dtype} if section.values else None}


def _give_quantization(recipe: TrainingSpec) -> dict[str, object]:
    """FSDP and ZeRO-3 split tensors of one floating type only: the codes are stored as such."""
    quantization = recipe.quantization
    if quantization is None:
        return {"QUANTIZATION": None, "UPCAST": "nothing"}
    split = quantization.four_bit and recipe.parallelism.shards_weights
    storage = {"bnb_4bit_quant_storage": recipe.dtype.value} if split else {}
    norms = "norms" if quantization.upcast_norms else "nothing"
    upcast = "unquantized" if quantization.upcast_unquantized else norms
    return {"QUANTIZATION": {**bitsandbytes_settings(quantization), **storage}, "UPCAST": upcast}


def _take_quantization(settings: Settings, found: Found) -> Found:
    section, upcast = settings.section("QUANTIZATION"), settings.word("UPCAST", "nothing")
    if not section.values:
        return {}
    upcasts = {"upcast_unquantized": upcast == "unquantized", "upcast_norms": upcast == "norms"}
    adapter = found["adapter"] or asdict(AdapterSpec())
    return {"adapter": adapter, "quantization": {**take_bitsandbytes(section), **upcasts}}


def _take_arguments(settings: Settings, found: Found) -> Found:
    """What the constants above have not said."""
    return {**take(ARGUMENTS, settings.section("TRAINING_ARGUMENTS")), **found}


_ADAPTER_DTYPE = Row("ADAPTER_DTYPE", "dtype", DTYPE, "float32")

ROWS = (
    Row("DTYPE", "dtype", DTYPE, None),
    Row("ATTENTION", "attention", ATTENTION, "sdpa"),
    Row("SEQUENCE_LENGTH", "sequence_length", COUNT, None),
    Row("PADDED", "padded", FLAG, None),
    Rule(_take_arguments, lambda recipe: {"TRAINING_ARGUMENTS": {**give(ARGUMENTS, recipe), **_MORE}}),
    Rule(_take_adapter, _give_adapter),
    Rule(_take_quantization, _give_quantization),
    Row("DEVICE_MAP", "device_map", WORD, "none"),
)
TOOL = Tool("script", "MODEL", ROWS, lambda recipe: recipe)


def text(constants: Mapping[str, object], header: str, in_parts: bool = False) -> str:
    """The whole script; `header` are comment lines. Quantized weights that are loaded `in_parts` stay on the host."""
    place = '"cpu"' if in_parts else _OWN_GPU
    lines = [f"{name} = {_written(value)}" for name, value in constants.items()]
    with open(_SCRIPT, encoding="utf-8") as file:
        return Template(file.read()).substitute(header=header.rstrip("\n"), constants="\n".join(lines), place=place)


def _written(value: object, indent: str = "") -> str:
    """A constant as people write it: a mapping with an entry a line, text in double quotes with Python's escapes."""
    if isinstance(value, dict) and value:
        inner = f"{indent}    "
        lines = [f"{inner}{_text(name)}: {_written(each, inner)},\n" for name, each in value.items()]
        return "{\n" + "".join(lines) + indent + "}"
    return _text(value) if isinstance(value, str) else repr(value)


def _text(text: str) -> str:
    return visible(json.dumps(text, ensure_ascii=False))
