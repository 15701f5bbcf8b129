"""TrainingArguments, PEFT's adapter_config.json and a BitsAndBytesConfig: the three parts of a plain Trainer run.

Names and defaults are those of transformers 5.23 (training_args.py, utils/quantization_config.py) and PEFT 0.21.
The arguments say neither how long sequences are nor how the weights are stored; a script of `recipe` does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from peftbench.catalog.adapter_file import adapter_of
from peftbench.estimate.peft_types.table import METHODS
from peftbench.inputs.recipe.adapter import AdapterSpec
from peftbench.inputs.recipe.dtype import DType
from peftbench.inputs.recipe.quantization import QuantizationSpec
from peftbench.inputs.recipe.training import TrainingSpec
from peftbench.recipes.lora import attention_of, checked_dtype, is_padded
from peftbench.recipes.settings import Reading, Settings
from peftbench.recipes.sharding import checkpoints_by_fsdp, read_trainer

NAME = "TrainingArguments"
SCRIPT = "script"
_NOTES = (
    "the training arguments do not say how long sequences are: --sequence-length does.",
    "the training arguments do not say how the weights are stored: --dtype does.",
)


def read(settings: Settings) -> Reading:
    """The recipe of a training_args.json. Raises SpecError for values that cannot be."""
    bf16, fp16 = settings.flag("bf16", False), settings.flag("fp16", False)
    micro = settings.count("per_device_train_batch_size", 8)
    checkpointing, reentrant = checkpointing_of(settings, False)
    liger = settings.flag("use_liger_kernel", False)
    recipe = TrainingSpec(
        padded=is_padded(False, micro),
        micro_batch_size=micro,
        gradient_accumulation_steps=settings.count("gradient_accumulation_steps", 1),
        gradient_checkpointing=checkpointing,
        use_reentrant=reentrant,
        dtype=DType.FLOAT16 if fp16 else DType.BFLOAT16,
        autocast=bf16 or fp16,
        optimizer=settings.word("optim", "adamw_torch_fused"),
        loss="liger" if liger else "transformers",
        fused_kernels="liger" if liger else "none",
        use_cache=settings.flag("use_cache", False),
        parallelism=read_trainer(settings),
    )
    return Reading(NAME, None, recipe, (*_NOTES, *evaluation_notes(settings, micro)))


def checkpointing_of(settings: Settings, default: bool) -> tuple[bool, bool]:
    """Whether layers are recomputed, and reentrantly; by either name of the Trainer's, or by FSDP itself."""
    on = settings.flag("gradient_checkpointing", default)
    reentrant = settings.section("gradient_checkpointing_kwargs").flag("use_reentrant", False)
    newer = settings.given("activation_checkpointing")
    if newer is not None:
        on = settings.flag("activation_checkpointing", on)
        reentrant = settings.section("activation_checkpointing_kwargs").flag("use_reentrant", reentrant)
    return on or checkpoints_by_fsdp(settings), reentrant


def evaluation_notes(settings: Settings, micro_batch_size: int) -> Iterator[str]:
    """Evaluation between the steps takes 8 sequences unless it is told otherwise: their logits can be the peak."""
    when = {settings.given(name) for name in ("eval_strategy", "evaluation_strategy")}  # the older name
    count = settings.count("per_device_eval_batch_size", 8)
    if count > micro_batch_size and when - {None, False, "no"}:
        yield f"evaluation takes {count} sequences at a time (per_device_eval_batch_size): that is not priced."


def read_script(settings: Settings) -> Reading:
    """The constants of a script that `recipe` wrote: the arguments, and what they do not say."""
    arguments = settings.section("TRAINING_ARGUMENTS")
    recipe = read(arguments).recipe
    adapter, quantization = settings.section("ADAPTER"), settings.section("QUANTIZATION")
    attention, notes = attention_of(settings.word("ATTENTION", "sdpa"), settings)
    recipe = replace(
        recipe,
        sequence_length=settings.count("SEQUENCE_LENGTH", recipe.sequence_length),
        padded=settings.flag("PADDED", recipe.padded),
        dtype=checked_dtype("DTYPE", settings.word("DTYPE", recipe.dtype.value), settings),
        attention=attention,
    )
    upcast = settings.word("UPCAST", "nothing")
    if quantization.values:
        recipe = replace(recipe, adapter=AdapterSpec(), quantization=replace(
            read_bitsandbytes(quantization), upcast_unquantized=upcast == "unquantized", upcast_norms=upcast == "norms",
        ))  # fmt: skip
    dtype = checked_dtype("ADAPTER_DTYPE", settings.word("ADAPTER_DTYPE", "float32"), settings)
    if adapter.values:
        recipe = replace(recipe, adapter=replace(read_adapter(adapter), dtype=dtype))
    return Reading(SCRIPT, settings.word_or_none("MODEL"), recipe, notes)


def read_adapter(settings: Settings) -> AdapterSpec:
    """The fields of adapter_config.json; raises NoFormula for what only PEFT can work out."""
    kind = settings.word("peft_type", "LORA").lower()
    settings.asked.update(settings.values)  # each field decides a size or is refused
    return adapter_of({"peft_type": kind, **settings.values}, METHODS[kind].options if kind in METHODS else {})


def read_bitsandbytes(settings: Settings) -> QuantizationSpec:
    """BitsAndBytesConfig with its defaults: fp4 that computes in float32, constants not quantized."""
    if settings.flag("load_in_8bit", False):
        compute = settings.word("bnb_4bit_compute_dtype", "bfloat16")
        return QuantizationSpec(quant_type="int8", compute_dtype=checked_dtype("compute dtype", compute, settings))
    compute = settings.word("bnb_4bit_compute_dtype", "float32")
    return QuantizationSpec(
        quant_type=settings.word("bnb_4bit_quant_type", "fp4"),
        double_quant=settings.flag("bnb_4bit_use_double_quant", False),
        compute_dtype=checked_dtype("bnb_4bit_compute_dtype", compute, settings),
    )


# ── writing ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def arguments(recipe: TrainingSpec) -> dict[str, object]:
    """Those TrainingArguments that the recipe decides."""
    half = recipe.autocast and recipe.dtype is DType.FLOAT16
    checkpointing = {"gradient_checkpointing_kwargs": {"use_reentrant": recipe.use_reentrant}}
    return {
        "per_device_train_batch_size": recipe.micro_batch_size,
        "gradient_accumulation_steps": recipe.gradient_accumulation_steps,
        "optim": recipe.optimizer,
        "bf16": recipe.autocast and not half,
        "fp16": half,
        "gradient_checkpointing": recipe.gradient_checkpointing,
        **(checkpointing if recipe.gradient_checkpointing else {}),
        "use_liger_kernel": recipe.loss == "liger",
        "use_cache": recipe.use_cache,
    }


def bitsandbytes_values(quantization: QuantizationSpec) -> dict[str, object]:
    """The fields of BitsAndBytesConfig; the type is written for 8 bit too, where it only says what was asked."""
    compute = {"bnb_4bit_compute_dtype": quantization.compute_dtype.value}
    if not quantization.four_bit:
        return {"load_in_8bit": True, **compute}
    return {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": quantization.quant_type,
        "bnb_4bit_use_double_quant": quantization.double_quant,
        **compute,
    }
