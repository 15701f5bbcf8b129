"""TrainingArguments, PEFT's adapter_config.json and a BitsAndBytesConfig: the three parts of a plain Trainer run.

Names and defaults are those of transformers 5.23 (training_args.py, utils/quantization_config.py) and PEFT 0.21.
The arguments say neither how long sequences are nor how the weights are stored; a script of `recipe` does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from peftbench.base.errors import NoFormula, located
from peftbench.decide.adapter_config import adapter_of, unknown_fields
from peftbench.inputs.recipe import AdapterSpec, DType, QuantizationSpec, TrainingSpec
from peftbench.recipes.kinds import COUNT, DTYPE, FLAG, WORD
from peftbench.recipes.rows import Found, Row, Rule, Tool, fixed, give, half, take
from peftbench.recipes.settings import Settings, Unread
from peftbench.recipes.sharding import SHARDING, checkpoints_by_fsdp

_NOTES = (
    "the training arguments do not say how long sequences are: --sequence-length does.",
    "the training arguments do not say how the weights are stored: --dtype does.",
)
_BITSANDBYTES = (
    Row("bnb_4bit_quant_type", "quant_type", WORD, "fp4"),
    Row("bnb_4bit_use_double_quant", "double_quant", FLAG, False),
    Row("bnb_4bit_compute_dtype", "compute_dtype", DTYPE, "float32"),
)
_EIGHT_BIT = (Row("bnb_4bit_compute_dtype", "compute_dtype", DTYPE, "bfloat16"),)
"""The type is written for 8 bit too, where it only says what was asked."""


BATCH = (
    Row("per_device_train_batch_size", "micro_batch_size", COUNT, 8),
    Row("gradient_accumulation_steps", "gradient_accumulation_steps", COUNT, 1),
)
OPTIMIZER = Row("optim", "optimizer", WORD, "adamw_torch_fused")
USE_CACHE = Row("use_cache", "use_cache", FLAG, False)
ONE_EPOCH = fixed(num_train_epochs=1, learning_rate=0.0002)


def liger_of(*settings: str) -> Rule:
    """Liger's loss and kernels by one switch, which may have several names; the first is written."""

    def taken(given: Settings, _found: Found) -> Found:
        on = True in [given.flag(name, False) for name in settings]
        return {"loss": "liger" if on else "transformers", "fused_kernels": "liger" if on else "none"}

    return Rule(taken, lambda recipe: {settings[0]: recipe.loss == "liger"})


def halves(recipe: TrainingSpec) -> dict[str, object]:
    """The switches bf16 and fp16 of TrainingArguments."""
    return {name: half(recipe) == name for name in ("bf16", "fp16")}


def checkpointing_settings(recipe: TrainingSpec) -> dict[str, object]:
    """gradient_checkpointing, with its kind where it is on."""
    on = recipe.gradient_checkpointing
    kind = {"gradient_checkpointing_kwargs": {"use_reentrant": recipe.use_reentrant}} if on else {}
    return {"gradient_checkpointing": on, **kind}


def _take_precision(settings: Settings, _found: Found) -> Found:
    bf16, fp16 = settings.flag("bf16", False), settings.flag("fp16", False)
    return {"dtype": DType.FLOAT16 if fp16 else DType.BFLOAT16, "autocast": bf16 or fp16}


def checkpointing(default: bool) -> Rule:
    """The Trainer's checkpointing; `default` is the tool's."""
    return Rule(lambda settings, _found: take_checkpointing(settings, default), checkpointing_settings)


def take_checkpointing(settings: Settings, default: bool) -> Found:
    """Whether layers are recomputed, and reentrantly; by either name of the Trainer's, or by FSDP itself."""
    on = settings.flag("gradient_checkpointing", default)
    reentrant = settings.section("gradient_checkpointing_kwargs").flag("use_reentrant", False)
    newer = settings.given("activation_checkpointing")
    if newer is not None:
        on = settings.flag("activation_checkpointing", on)
        reentrant = settings.section("activation_checkpointing_kwargs").flag("use_reentrant", reentrant)
    return {"gradient_checkpointing": on or checkpoints_by_fsdp(settings), "use_reentrant": reentrant}


def evaluation_notes(settings: Settings, recipe: TrainingSpec) -> Iterator[str | Unread]:
    """Evaluation between the steps takes 8 sequences by default: their logits can be the peak."""
    when = [settings.given(name) for name in ("eval_strategy", "evaluation_strategy")]  # the older name
    count = settings.count("per_device_eval_batch_size", 8)
    if count > recipe.micro_batch_size and any(each not in (None, False, "no") for each in when):
        yield Unread(f"per_device_eval_batch_size {count}", "evaluates more sequences at a time than it trains", count)


def _notes(settings: Settings, recipe: TrainingSpec) -> Iterator[str | Unread]:
    yield from _NOTES
    yield from evaluation_notes(settings, recipe)


ARGUMENTS = (
    *BATCH,
    OPTIMIZER,
    Rule(_take_precision, halves),
    checkpointing(False),
    liger_of("use_liger_kernel"),
    USE_CACHE,
    SHARDING,
)
TOOL = Tool("TrainingArguments", None, ARGUMENTS, lambda recipe: recipe, _notes)


def _formula_of(config: Mapping[str, Any]) -> AdapterSpec:
    try:
        return adapter_of(config)
    except NoFormula as error:
        raise NoFormula(error.what, "Plan it alone: --adapter-config FILE --dry-run.") from None


def read_adapter(settings: Settings) -> AdapterSpec:
    """The fields of adapter_config.json; raises NoFormula for what only PEFT can work out."""
    config = {"peft_type": "LORA", **settings.values}
    settings.asked.update(settings.values)  # each field is priced, costs nothing, or is refused
    section = settings.prefix.rstrip(".")
    with located(f"{section} of the {settings.tool} file" if section else "adapter_config.json"):
        adapter = _formula_of(config)
    settings.said += unknown_fields(config)
    return adapter


def take_bitsandbytes(settings: Settings) -> Found:
    """BitsAndBytesConfig with its defaults: fp4 that computes in float32, constants not quantized."""
    if settings.flag("load_in_8bit", False):
        return {"quant_type": "int8", **take(_EIGHT_BIT, settings)}
    return take(_BITSANDBYTES, settings)


def bitsandbytes_settings(quantization: QuantizationSpec) -> dict[str, object]:
    """The fields of BitsAndBytesConfig."""
    if not quantization.four_bit:
        return {"load_in_8bit": True, **give(_EIGHT_BIT, quantization)}
    return {"load_in_4bit": True, **give(_BITSANDBYTES, quantization)}
