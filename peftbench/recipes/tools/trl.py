"""TRL's YAML for `trl sft`: its settings with its own defaults.

Names and defaults are those of trl 1.16: trainer/{sft_config,base_config,model_config}.py over transformers'
TrainingArguments; what they lead to is in trainer/sft_trainer.py: adapters of quantized models in bfloat16, and a
head that is fused with the loss, so that the logits are never whole.
"""

from __future__ import annotations

from dataclasses import replace

from peftbench.inputs.recipe import DType, TrainingSpec
from peftbench.recipes.kinds import ATTENTION, COUNT, DTYPE, FLAG, LIGER, SHARE, TARGETS, WORD, Kind
from peftbench.recipes.rows import DATASET, Found, Row, Rule, Tool, alpha, fixed, give, packed, take, under_zero
from peftbench.recipes.settings import Settings, Unread
from peftbench.recipes.sharding import SHARDING
from peftbench.recipes.tools.trainer import (
    BATCH,
    ONE_EPOCH,
    OPTIMIZER,
    USE_CACHE,
    checkpointing,
    evaluation_notes,
    halves,
)

_FUSED = "read as a file for `trl sft`, whose loss works on chunks and holds no logits: priced as Liger's fused loss."
_SMOOTHED = "label_smoothing_factor makes TRL keep all logits and run the model twice: priced as one plain loss."
_SMOOTHING = Unread("label_smoothing_factor", "keeps the probabilities of every token as well")


def _dtype(settings: Settings, name: str, default: str) -> object:
    """float32 unless it is set; "auto" is the checkpoint's, which is bfloat16 nearly always."""
    auto = settings.given(name) == "auto"
    return DType.BFLOAT16 if auto else DTYPE.take(settings, name, default)


def _take_adapter(settings: Settings, _found: Found) -> Found:
    """The constants of quantized weights stay float32 unless nested; their compute dtype is that of the model."""
    quantization = _take_quantization(settings)
    if not settings.flag("use_peft", False):
        return {"quantization": quantization}
    dtype = DType.FLOAT32 if quantization is None else DType.BFLOAT16
    return {"quantization": quantization, "adapter": {**take(_ADAPTER, settings), "dtype": dtype}}


def _take_quantization(settings: Settings) -> Found | None:
    four, eight = settings.flag("load_in_4bit", False), settings.flag("load_in_8bit", False)
    found = take(_QUANTIZATION, settings)
    if eight:
        return {"quant_type": "int8"}
    return found if four else None


def _give_adapter(recipe: TrainingSpec) -> dict[str, object]:
    """Where weights are split over GPUs, the codes are stored in the one floating type that all tensors have."""
    adapter, quantization = recipe.adapter, recipe.quantization
    if adapter is None:
        return {"use_peft": False}
    written: dict[str, object] = {"use_peft": True, **give(_ADAPTER, adapter)}
    if quantization is None:
        return written
    if not quantization.four_bit:
        return {**written, "load_in_8bit": True}
    storage = {"bnb_4bit_quant_storage": recipe.dtype.value} if recipe.parallelism.shards_weights else {}
    return {**written, **storage, "load_in_4bit": True, **give(_QUANTIZATION, quantization)}


def _take_packing(settings: Settings, _found: Found) -> Found:
    return {"packed": settings.flag("packing", False) or settings.flag("padding_free", False)}


def _give_packing(recipe: TrainingSpec) -> dict[str, object]:
    """The "wrapped" packing fills every sequence to its end."""
    return {"packing": True, "packing_strategy": "wrapped"} if packed(recipe) else {"packing": False}


def _take_autocast(settings: Settings, _found: Found) -> Found:
    fp16 = settings.flag("fp16", False)
    return {"autocast": settings.flag("bf16", not fp16) or fp16}


def _take_loss(settings: Settings, _found: Found) -> Found:
    smoothed = settings.share("label_smoothing_factor", 0.0) > 0
    settings.said += [_SMOOTHED, _SMOOTHING] if smoothed else [_FUSED]
    return {"loss": "transformers" if smoothed else "liger"}


def settle(recipe: TrainingSpec) -> TrainingSpec:
    """With ZeRO-3, TRL makes checkpointing reentrant, and adapters of the type of weights that are not quantized."""
    recipe = under_zero(recipe)
    adapter = recipe.adapter
    if adapter is None or recipe.parallelism.strategy != "zero3":
        return recipe
    if recipe.quantization is None:
        adapter = replace(adapter, dtype=recipe.dtype)
    return replace(recipe, adapter=adapter, use_reentrant=recipe.gradient_checkpointing or recipe.use_reentrant)


_ADAPTER = (
    Row("lora_r", "r", COUNT, 16),
    alpha(16, lambda r: 32),
    Row("lora_dropout", "dropout", SHARE, 0.05),
    Row("use_dora", "use_dora", FLAG, False),
    Row("use_rslora", "use_rslora", FLAG, False),
    Row("lora_target_modules", "target_modules", TARGETS, None),
)
_QUANTIZATION = (
    Row("bnb_4bit_quant_type", "quant_type", WORD, "nf4"),
    Row("use_bnb_nested_quant", "double_quant", FLAG, False),
)
TOOL = Tool("TRL", "model_name_or_path", (
    Row("dtype", "dtype", Kind(_dtype, DTYPE.give), "float32", older="torch_dtype"),
    Rule(_take_adapter, _give_adapter),
    fixed(datasets=[{"path": "json", "data_files": DATASET}], output_dir="out"),
    Row("max_length", "sequence_length", COUNT, 1024, older="max_seq_length"),
    Rule(_take_packing, _give_packing),
    *BATCH,
    ONE_EPOCH,
    OPTIMIZER,
    Rule(_take_autocast, halves),
    checkpointing(True),
    Row("attn_implementation", "attention", ATTENTION, "sdpa"),
    Row("use_liger_kernel", "fused_kernels", LIGER, "none"),
    USE_CACHE,
    SHARDING,
    Rule(_take_loss),
), settle, evaluation_notes)  # fmt: skip
