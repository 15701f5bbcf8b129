"""LLaMA-Factory's YAML: its settings with its own defaults.

Names and defaults are those of llamafactory 0.9.5: hparams/{model,data,finetuning}_args.py over transformers'
TrainingArguments; what they lead to is in hparams/parser.py (dtype, packing), model/adapter.py (trained weights in
float32) and model/model_utils/{quantization,checkpointing}.py.
"""

from __future__ import annotations

from peftbench.base.errors import NoFormula
from peftbench.inputs.recipe import DType, QuantizationSpec, TrainingSpec
from peftbench.recipes.kinds import COUNT, EVERY_LINEAR, FLAG, SHARE, WORD, Kind, attention_of, targets_of
from peftbench.recipes.rows import DATASET, Found, Row, Rule, Tool, alpha, fixed, give, half, packed, take
from peftbench.recipes.settings import Settings, Unread
from peftbench.recipes.sharding import SHARDING, fsdp_option
from peftbench.recipes.tools.trainer import BATCH, ONE_EPOCH, OPTIMIZER, evaluation_notes, liger_of, take_checkpointing

_ATTENTIONS = {"auto": "sdpa", "disabled": "eager", "sdpa": "sdpa", "fa2": "flash_attention_2", "fa3": "fa3"}
_WORDS = {"sdpa": "sdpa", "eager": "disabled", "flash_attention_2": "fa2"}


def _take_stage(settings: Settings, _found: Found) -> Found:
    """Pre-training packs by default."""
    stage = settings.word("stage", "sft")
    if stage not in ("sft", "pt"):
        raise NoFormula(f"stage {stage[:20]} of LLaMA-Factory is not modelled.", "sft and pt are.")
    return {"packed": stage == "pt"}


def _take_packing(settings: Settings, found: Found) -> Found:
    together = settings.flag("packing", found["packed"])
    neat = settings.flag("neat_packing", False)
    settings.said += [Unread("neat_packing", "keeps a mask for each pair of tokens")] if neat else []
    return {"packed": together or neat}


def _take_adapter(settings: Settings, _found: Found) -> Found:
    kind = settings.word("finetuning_type", "lora")
    if kind not in ("lora", "full"):
        raise NoFormula(f"finetuning_type {kind[:20]} of LLaMA-Factory is not modelled.", "lora and full are.")
    adapter = take(_ADAPTER, settings) if kind == "lora" else None
    return {"adapter": adapter, "quantization": _take_quantization(settings)}


def _take_quantization(settings: Settings) -> Found | None:
    """bitsandbytes on the fly; upcast_layernorm casts the norms."""
    bits, method = settings.given("quantization_bit"), settings.word("quantization_method", "bnb")
    found = take(_FOUR_BIT, settings)
    if bits is None:
        return None
    if bits not in (4, 8) or method.lower() not in ("bnb", "bitsandbytes"):
        raise NoFormula(f"quantization_bit {bits} by {method[:20]} is not modelled.", "4 and 8 bit by bnb are.")
    return found if bits == 4 else {**found, "quant_type": "int8"}


def _give_adapter(recipe: TrainingSpec) -> dict[str, object]:
    if recipe.adapter is None:
        return {"finetuning_type": "full"}
    quantized = _give_quantization(recipe.quantization) if recipe.quantization else {}
    return {"finetuning_type": "lora", **give(_ADAPTER, recipe.adapter), **quantized}


def _give_quantization(quantization: QuantizationSpec) -> dict[str, object]:
    if quantization.four_bit:
        return {"quantization_bit": 4, **give(_FOUR_BIT, quantization)}
    return {"quantization_bit": 8, **give((_UPCAST,), quantization)}


def _take_precision(settings: Settings, found: Found) -> Found:
    """bf16 and fp16 are autocast; weights that are trained are cast to float32 unless pure_bf16 is on.

    Frozen weights are in the type of autocast, or else in bfloat16, which infer_optim_dtype prefers.
    """
    bf16, fp16 = settings.flag("bf16", False), settings.flag("fp16", False)
    if settings.flag("pure_bf16", False):
        return {"dtype": DType.BFLOAT16, "autocast": bf16}
    frozen = DType.FLOAT16 if fp16 and not bf16 else DType.BFLOAT16
    return {"dtype": DType.FLOAT32 if found["adapter"] is None else frozen, "autocast": bf16 or fp16}


def _give_precision(recipe: TrainingSpec) -> dict[str, object]:
    """Full fine-tuning of 16-bit weights is pure_bf16; DeepSpeed casts them itself, and rules pure_bf16 out."""
    whole = recipe.adapter is None and not recipe.parallelism.strategy.startswith("zero")
    pure = {"pure_bf16": True} if whole and recipe.dtype is DType.BFLOAT16 else {}
    return {"bf16": half(recipe) == "bf16" and not pure, "fp16": half(recipe) == "fp16", **pure}


def _take_checkpointing(settings: Settings, _found: Found) -> Found:
    """On, whatever TrainingArguments say, unless it is disabled; FSDP 2 rules out reentrant checkpointing."""
    disabled = settings.flag("disable_gradient_checkpointing", False)
    on = take_checkpointing(settings, False)["gradient_checkpointing"]
    by_fsdp2 = settings.given("fsdp") and fsdp_option(settings.section("fsdp_config"), "version") in (2, "2")
    reentrant = settings.flag("use_reentrant_gc", True) and not by_fsdp2
    return {"gradient_checkpointing": on or not disabled, "use_reentrant": reentrant}


def _give_checkpointing(recipe: TrainingSpec) -> dict[str, object]:
    on = recipe.gradient_checkpointing
    return {"disable_gradient_checkpointing": not on, **({"use_reentrant_gc": recipe.use_reentrant} if on else {})}


def _take_targets(settings: Settings, name: str, default: tuple[str, ...]) -> tuple[str, ...]:
    names = targets_of(settings, name, default)
    return EVERY_LINEAR if names == ("all",) or names is None else names


def _take_attention(settings: Settings, name: str, default: str) -> str:
    asked = settings.word(name, default)
    return attention_of(_ATTENTIONS.get(asked, asked), settings)


_TARGETS = Kind(_take_targets, lambda names: "all" if names == EVERY_LINEAR else ",".join(names))
_ADAPTER = (
    Row("lora_rank", "r", COUNT, 8),
    alpha(8, lambda r: 2 * r),
    Row("lora_target", "target_modules", _TARGETS, EVERY_LINEAR),
    Row("lora_dropout", "dropout", SHARE, 0.0),
    Row("use_dora", "use_dora", FLAG, False),
    Row("use_rslora", "use_rslora", FLAG, False),
)
_UPCAST = Row("upcast_layernorm", "upcast_norms", FLAG, False)
_FOUR_BIT = (
    Row("quantization_type", "quant_type", WORD, "nf4"),
    Row("double_quantization", "double_quant", FLAG, True),
    _UPCAST,
)
TOOL = Tool("LLaMA-Factory", "model_name_or_path", (
    Rule(_take_stage, lambda recipe: {"stage": "sft", "do_train": True}),
    Rule(_take_adapter, _give_adapter),
    fixed(dataset=DATASET.removesuffix(".jsonl"), dataset_dir=".", output_dir="out"),
    Row("cutoff_len", "sequence_length", COUNT, 2048),
    Rule(_take_packing, lambda recipe: {"packing": packed(recipe)}),
    *BATCH,
    ONE_EPOCH,
    OPTIMIZER,
    Rule(_take_precision, _give_precision),
    Rule(_take_checkpointing, _give_checkpointing),
    Row("flash_attn", "attention", Kind(_take_attention, _WORDS.__getitem__), "auto"),
    liger_of("enable_liger_kernel", "use_liger_kernel"),
    SHARDING,
), notes=evaluation_notes)  # fmt: skip
