"""LLaMA-Factory's YAML: its settings with its own defaults, and a recipe in its words.

Names and defaults are those of llamafactory 0.9.5: hparams/{model,data,finetuning}_args.py over transformers'
TrainingArguments; what they lead to is in hparams/parser.py (dtype, packing), model/adapter.py (trained weights in
float32) and model/model_utils/{quantization,checkpointing}.py.
"""

from __future__ import annotations

from peftbench.base.errors import NoFormula
from peftbench.inputs.recipe.adapter import AdapterSpec
from peftbench.inputs.recipe.dtype import DType
from peftbench.inputs.recipe.quantization import QuantizationSpec
from peftbench.inputs.recipe.training import TrainingSpec
from peftbench.recipes.lora import EVERY_LINEAR, attention_of, is_padded, target_names, targets
from peftbench.recipes.settings import Reading, Settings
from peftbench.recipes.sharding import read_trainer, trainer_values, under_deepspeed
from peftbench.recipes.trainer import checkpointing_of, evaluation_notes

NAME = "LLaMA-Factory"
_ATTENTIONS = {"auto": "sdpa", "disabled": "eager", "sdpa": "sdpa", "fa2": "flash_attention_2", "fa3": "fa3"}
_WORDS = {"sdpa": "sdpa", "eager": "disabled", "flash_attention_2": "fa2"}


def read(settings: Settings) -> Reading:
    """The recipe that LLaMA-Factory would run. Raises SpecError for values that cannot be."""
    stage = settings.word("stage", "sft")
    if stage not in ("sft", "pt"):
        raise NoFormula(f"stage {stage[:20]} of LLaMA-Factory is not modelled.", "sft and pt are.")
    adapted = _kind(settings) == "lora"
    dtype, autocast = _dtype(settings, adapted)
    asked = settings.word("flash_attn", "auto")
    attention, notes = attention_of(_ATTENTIONS.get(asked, asked), settings)
    micro = settings.count("per_device_train_batch_size", 8)
    packed = settings.flag("packing", stage == "pt")
    if settings.flag("neat_packing", False):
        packed, notes = True, (*notes, "neat_packing's mask between documents is not priced.")
    liger = settings.flag("enable_liger_kernel", False) | settings.flag("use_liger_kernel", False)
    recipe = TrainingSpec(
        sequence_length=settings.count("cutoff_len", 2048),
        padded=is_padded(packed, micro),
        micro_batch_size=micro,
        gradient_accumulation_steps=settings.count("gradient_accumulation_steps", 1),
        gradient_checkpointing=_checkpointing(settings),
        use_reentrant=settings.flag("use_reentrant_gc", True) and not _by_fsdp2(settings),
        dtype=dtype,
        autocast=autocast,
        optimizer=settings.word("optim", "adamw_torch_fused"),
        attention=attention,
        loss="liger" if liger else "transformers",
        fused_kernels="liger" if liger else "none",
        adapter=_adapter(settings) if adapted else None,
        quantization=_quantization(settings, dtype),
        parallelism=read_trainer(settings),
    )
    notes = (*notes, *evaluation_notes(settings, micro))
    return Reading(NAME, settings.word_or_none("model_name_or_path"), under_deepspeed(recipe), notes)


def _kind(settings: Settings) -> str:
    kind = settings.word("finetuning_type", "lora")
    if kind not in ("lora", "full"):
        raise NoFormula(f"finetuning_type {kind[:20]} of LLaMA-Factory is not modelled.", "lora and full are.")
    return kind


def _dtype(settings: Settings, adapted: bool) -> tuple[DType, bool]:
    """bf16 and fp16 are autocast; weights that are trained are cast to float32 unless pure_bf16 is on.

    Frozen weights are in the type of autocast, or else in bfloat16, which infer_optim_dtype prefers.
    """
    bf16, fp16 = settings.flag("bf16", False), settings.flag("fp16", False)
    if settings.flag("pure_bf16", False):
        return DType.BFLOAT16, bf16
    if not adapted:
        return DType.FLOAT32, bf16 or fp16
    return (DType.FLOAT16 if fp16 and not bf16 else DType.BFLOAT16), bf16 or fp16


def _checkpointing(settings: Settings) -> bool:
    """On, whatever TrainingArguments say, unless it is disabled."""
    return (not settings.flag("disable_gradient_checkpointing", False)) | checkpointing_of(settings, False)[0]


def _by_fsdp2(settings: Settings) -> bool:
    """FSDP 2 rules out reentrant checkpointing, and LLaMA-Factory turns it off."""
    versions = [settings.section("fsdp_config").given(name) for name in ("version", "fsdp_version")]
    return bool(settings.given("fsdp")) and any(version in (2, "2") for version in versions)


def _adapter(settings: Settings) -> AdapterSpec:
    names = target_names("lora_target", settings) or ("all",)
    return AdapterSpec(
        r=settings.count("lora_rank", 8),
        target_modules=EVERY_LINEAR if names == ("all",) else names,
        use_dora=settings.flag("use_dora", False),
        use_rslora=settings.flag("use_rslora", False),
        dropout=settings.share("lora_dropout", 0.0),
    )


def _quantization(settings: Settings, dtype: DType) -> QuantizationSpec | None:
    """bitsandbytes on the fly; upcast_layernorm casts the norms."""
    bits, method = settings.given("quantization_bit"), settings.word("quantization_method", "bnb")
    quant_type, double = settings.word("quantization_type", "nf4"), settings.flag("double_quantization", True)
    norms = settings.flag("upcast_layernorm", False)
    if bits is None:
        return None
    if bits not in (4, 8) or method.lower() not in ("bnb", "bitsandbytes"):
        raise NoFormula(f"quantization_bit {bits} by {method[:20]} is not modelled.", "4 and 8 bit by bnb are.")
    kind = quant_type if bits == 4 else "int8"
    return QuantizationSpec(quant_type=kind, double_quant=double, compute_dtype=dtype, upcast_norms=norms)


# ── writing ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def values(model: str, recipe: TrainingSpec, dataset: str) -> dict[str, object]:
    """The file that comes nearest to the recipe."""
    checkpointing = {"use_reentrant_gc": recipe.use_reentrant} if recipe.gradient_checkpointing else {}
    return {
        "model_name_or_path": model,
        "stage": "sft",
        "do_train": True,
        **_adapter_values(recipe),
        "dataset": dataset.removesuffix(".jsonl"),
        "dataset_dir": ".",
        "output_dir": "out",
        "cutoff_len": recipe.sequence_length,
        "packing": not recipe.padded and recipe.micro_batch_size > 1,
        "per_device_train_batch_size": recipe.micro_batch_size,
        "gradient_accumulation_steps": recipe.gradient_accumulation_steps,
        "num_train_epochs": 1,
        "learning_rate": 0.0002,
        "optim": recipe.optimizer,
        **_precision(recipe),
        "disable_gradient_checkpointing": not recipe.gradient_checkpointing,
        **checkpointing,
        "flash_attn": _WORDS[recipe.attention],
        "enable_liger_kernel": recipe.loss == "liger",
        **trainer_values(recipe),
    }


def _precision(recipe: TrainingSpec) -> dict[str, object]:
    """Full fine-tuning of 16-bit weights is pure_bf16; DeepSpeed casts them itself, and rules pure_bf16 out."""
    fp16 = recipe.autocast and recipe.dtype is DType.FLOAT16
    whole = recipe.adapter is None and not recipe.parallelism.strategy.startswith("zero")
    pure = {"pure_bf16": True} if whole and recipe.dtype is DType.BFLOAT16 else {}
    return {"bf16": recipe.autocast and not fp16 and not pure, "fp16": fp16, **pure}


def _adapter_values(recipe: TrainingSpec) -> dict[str, object]:
    adapter, quantization = recipe.adapter, recipe.quantization
    if adapter is None:
        return {"finetuning_type": "full"}
    every = targets(adapter, "all")
    values: dict[str, object] = {
        "finetuning_type": "lora",
        "lora_rank": adapter.r or 8,
        "lora_alpha": 2 * (adapter.r or 8),
        "lora_target": every if isinstance(every, str) else ",".join(every),
        "lora_dropout": adapter.dropout,
        "use_dora": adapter.use_dora,
        "use_rslora": adapter.use_rslora,
    }
    return {**values, **(_bitsandbytes_values(quantization) if quantization else {})}


def _bitsandbytes_values(quantization: QuantizationSpec) -> dict[str, object]:
    if not quantization.four_bit:
        return {"quantization_bit": 8, "upcast_layernorm": quantization.upcast_norms}
    return {
        "quantization_bit": 4,
        "quantization_type": quantization.quant_type,
        "double_quantization": quantization.double_quant,
        "upcast_layernorm": quantization.upcast_norms,
    }
