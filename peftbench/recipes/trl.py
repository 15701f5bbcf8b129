"""TRL's YAML for `trl sft`: its settings with its own defaults, and a recipe in its words.

Names and defaults are those of trl 1.16: trainer/{sft_config,base_config,model_config}.py over transformers'
TrainingArguments; what they lead to is in trainer/sft_trainer.py: adapters of quantized models in bfloat16, and a
head that is fused with the loss, so that the logits are never whole.
"""

from __future__ import annotations

from peftbench.recipes.lora import EVERY_LINEAR, attention_of, checked_dtype, is_padded, targets
from peftbench.recipes.settings import Reading, Settings
from peftbench.recipes.sharding import read_trainer, trainer_values
from peftbench.spec.adapter import AdapterSpec
from peftbench.spec.dtype import DType
from peftbench.spec.quantization import QuantizationSpec
from peftbench.spec.training import TrainingSpec

NAME = "TRL"
_FUSED = "TRL's loss works on chunks of tokens and holds no logits: priced as Liger's fused loss."


def read(settings: Settings) -> Reading:
    """The recipe that `trl sft` would run. Raises SpecError for values that cannot be."""
    dtype = _dtype(settings)
    fp16 = settings.flag("fp16", False)
    attention, notes = attention_of(settings.word("attn_implementation", "sdpa"), settings)
    micro = settings.count("per_device_train_batch_size", 8)
    packed = settings.flag("packing", False) or settings.flag("padding_free", False)
    settings.asked |= {"packing_strategy", "loss_type"}
    quantization = _quantization(settings, dtype)
    recipe = TrainingSpec(
        sequence_length=settings.count("max_length", 1024),
        padded=is_padded(packed, micro),
        micro_batch_size=micro,
        gradient_accumulation_steps=settings.count("gradient_accumulation_steps", 1),
        gradient_checkpointing=settings.flag("gradient_checkpointing", True),
        use_reentrant=settings.section("gradient_checkpointing_kwargs").flag("use_reentrant", False),
        dtype=dtype,
        autocast=settings.flag("bf16", not fp16) or fp16,
        optimizer=settings.word("optim", "adamw_torch_fused"),
        attention=attention,
        loss="liger",
        fused_kernels="liger" if settings.flag("use_liger_kernel", False) else "none",
        adapter=_adapter(settings, quantization is not None),
        quantization=quantization,
        parallelism=read_trainer(settings),
    )
    return Reading(NAME, settings.word_or_none("model_name_or_path"), recipe, (*notes, _FUSED))


def _dtype(settings: Settings) -> DType:
    """Of the weights: float32 unless it is set; "auto" is the checkpoint's, which is bfloat16 nearly always."""
    value = settings.word("dtype", settings.word("torch_dtype", "float32"))  # the older name
    return DType.BFLOAT16 if value == "auto" else checked_dtype("dtype", value, settings)


def _adapter(settings: Settings, quantized: bool) -> AdapterSpec | None:
    if not settings.flag("use_peft", False):
        return None
    names = settings.names("lora_target_modules")
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
    settings.given("bnb_4bit_quant_storage")
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
    return {**values, **where, **(_bitsandbytes_values(quantization) if quantization else {})}


def _bitsandbytes_values(quantization: QuantizationSpec) -> dict[str, object]:
    if not quantization.four_bit:
        return {"load_in_8bit": True}
    return {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": quantization.quant_type,
        "use_bnb_nested_quant": quantization.double_quant,
    }
