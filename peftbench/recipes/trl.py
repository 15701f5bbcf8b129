"""TRL's YAML for `trl sft`: its settings with its own defaults, and a recipe in its words.

Names and defaults are those of trl 1.16: trainer/{sft_config,base_config,model_config}.py over transformers'
TrainingArguments; what they lead to is in trainer/sft_trainer.py: adapters of quantized models in bfloat16, and a
head that is fused with the loss, so that the logits are never whole.
"""

from __future__ import annotations

from dataclasses import replace

from peftbench.inputs.recipe.adapter import AdapterSpec
from peftbench.inputs.recipe.dtype import DType
from peftbench.inputs.recipe.quantization import QuantizationSpec
from peftbench.inputs.recipe.training import TrainingSpec
from peftbench.recipes.lora import EVERY_LINEAR, attention_of, checked_dtype, is_padded, target_names, targets
from peftbench.recipes.settings import Reading, Settings
from peftbench.recipes.sharding import read_trainer, trainer_values, under_deepspeed
from peftbench.recipes.trainer import checkpointing_of, evaluation_notes
from peftbench.recipes.unread import check_kind

NAME = "TRL"
_FUSED = "read as a file for `trl sft`, whose loss works on chunks and holds no logits: priced as Liger's fused loss."
_SMOOTHED = "label_smoothing_factor makes TRL keep all logits and run the model twice: priced as one plain loss."


def read(settings: Settings) -> Reading:
    """The recipe that `trl sft` would run. Raises SpecError for values that cannot be."""
    check_kind(settings)
    dtype = _dtype(settings)
    fp16 = settings.flag("fp16", False)
    attention, notes = attention_of(settings.word("attn_implementation", "sdpa"), settings)
    micro = settings.count("per_device_train_batch_size", 8)
    packed = settings.flag("packing", False) or settings.flag("padding_free", False)
    checkpointing, reentrant = checkpointing_of(settings, True)
    smoothed = settings.share("label_smoothing_factor", 0.0) > 0
    quantization = _quantization(settings, dtype)
    recipe = TrainingSpec(
        sequence_length=settings.count("max_length", settings.count("max_seq_length", 1024)),  # the older name
        padded=is_padded(packed, micro),
        micro_batch_size=micro,
        gradient_accumulation_steps=settings.count("gradient_accumulation_steps", 1),
        gradient_checkpointing=checkpointing,
        use_reentrant=reentrant,
        dtype=dtype,
        autocast=settings.flag("bf16", not fp16) or fp16,
        optimizer=settings.word("optim", "adamw_torch_fused"),
        attention=attention,
        loss="transformers" if smoothed else "liger",
        fused_kernels="liger" if settings.flag("use_liger_kernel", False) else "none",
        use_cache=settings.flag("use_cache", False),
        adapter=_adapter(settings, quantization is not None),
        quantization=quantization,
        parallelism=read_trainer(settings),
    )
    notes = (*notes, _SMOOTHED if smoothed else _FUSED, *evaluation_notes(settings, micro))
    return Reading(NAME, settings.word_or_none("model_name_or_path"), under_zero3(under_deepspeed(recipe)), notes)


def under_zero3(recipe: TrainingSpec) -> TrainingSpec:
    """With ZeRO-3, TRL makes checkpointing reentrant, and adapters of the type of weights that are not quantized."""
    adapter = recipe.adapter
    if adapter is None or recipe.parallelism.strategy != "zero3":
        return recipe
    if recipe.quantization is None:
        adapter = replace(adapter, dtype=recipe.dtype)
    return replace(recipe, adapter=adapter, use_reentrant=recipe.gradient_checkpointing or recipe.use_reentrant)


def _dtype(settings: Settings) -> DType:
    """Of the weights: float32 unless it is set; "auto" is the checkpoint's, which is bfloat16 nearly always."""
    value = settings.word("dtype", settings.word("torch_dtype", "float32"))  # the older name
    return DType.BFLOAT16 if value == "auto" else checked_dtype("dtype", value, settings)


def _adapter(settings: Settings, quantized: bool) -> AdapterSpec | None:
    if not settings.flag("use_peft", False):
        return None
    names = target_names("lora_target_modules", settings)
    return AdapterSpec(
        r=settings.count("lora_r", 16),
        target_modules=names,
        use_dora=settings.flag("use_dora", False),
        use_rslora=settings.flag("use_rslora", False),
        dropout=settings.share("lora_dropout", 0.05),
        dtype=DType.BFLOAT16 if quantized else DType.FLOAT32,
    )


def _quantization(settings: Settings, dtype: DType) -> QuantizationSpec | None:
    """bnb_4bit_compute_dtype is the dtype of the model; the constants stay float32 unless nested."""
    four, eight = settings.flag("load_in_4bit", False), settings.flag("load_in_8bit", False)
    quant_type, nested = settings.word("bnb_4bit_quant_type", "nf4"), settings.flag("use_bnb_nested_quant", False)
    if not (four or eight):
        return None
    if eight:
        return QuantizationSpec(quant_type="int8", compute_dtype=dtype)
    return QuantizationSpec(quant_type=quant_type, double_quant=nested, compute_dtype=dtype)


# ── writing ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def values(model: str, recipe: TrainingSpec, dataset: str) -> dict[str, object]:
    """The file that comes nearest to the recipe; the "wrapped" packing fills every sequence to its end."""
    packed = not recipe.padded and recipe.micro_batch_size > 1
    checkpointing = {"gradient_checkpointing_kwargs": {"use_reentrant": recipe.use_reentrant}}
    fp16 = recipe.autocast and recipe.dtype is DType.FLOAT16
    return {
        "model_name_or_path": model,
        "dtype": recipe.dtype.value,
        **_adapter_values(recipe),
        "datasets": [{"path": "json", "data_files": dataset}],
        "output_dir": "out",
        "max_length": recipe.sequence_length,
        "packing": packed,
        **({"packing_strategy": "wrapped"} if packed else {}),
        "per_device_train_batch_size": recipe.micro_batch_size,
        "gradient_accumulation_steps": recipe.gradient_accumulation_steps,
        "num_train_epochs": 1,
        "learning_rate": 0.0002,
        "optim": recipe.optimizer,
        "bf16": recipe.autocast and not fp16,
        "fp16": fp16,
        "gradient_checkpointing": recipe.gradient_checkpointing,
        **(checkpointing if recipe.gradient_checkpointing else {}),
        "attn_implementation": recipe.attention,
        "use_liger_kernel": recipe.fused_kernels == "liger",
        "use_cache": recipe.use_cache,
        **trainer_values(recipe),
    }


def _adapter_values(recipe: TrainingSpec) -> dict[str, object]:
    adapter, quantization = recipe.adapter, recipe.quantization
    if adapter is None:
        return {"use_peft": False}
    names = targets(adapter, EVERY_LINEAR[0])
    values: dict[str, object] = {
        "use_peft": True,
        "lora_r": adapter.r or 16,
        "lora_alpha": 2 * (adapter.r or 16),
        "lora_dropout": adapter.dropout,
        "use_dora": adapter.use_dora,
        "use_rslora": adapter.use_rslora,
    }
    where: dict[str, object] = {"lora_target_modules": [names] if isinstance(names, str) else names} if names else {}
    return {**values, **where, **(_bitsandbytes_values(quantization, recipe) if quantization else {})}


def _bitsandbytes_values(quantization: QuantizationSpec, recipe: TrainingSpec) -> dict[str, object]:
    """Where weights are split over GPUs, the codes are stored in the one floating type that all tensors have."""
    if not quantization.four_bit:
        return {"load_in_8bit": True}
    split = recipe.parallelism.shards_weights
    return {
        **({"bnb_4bit_quant_storage": recipe.dtype.value} if split else {}),
        "load_in_4bit": True,
        "bnb_4bit_quant_type": quantization.quant_type,
        "use_bnb_nested_quant": quantization.double_quant,
    }
