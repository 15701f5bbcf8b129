"""Axolotl's YAML: its settings with its own defaults, and a recipe in its words.

Names and defaults are those of axolotl 0.19: utils/schemas/{config,peft,training,fsdp}.py; what they lead to is in
utils/config/__init__.py (dtypes, reentrant checkpointing) and loaders/model.py (bitsandbytes, float32 norms).
"""

from __future__ import annotations

from peftbench.base.errors import NoFormula, SpecError
from peftbench.inputs.recipe.adapter import AdapterSpec
from peftbench.inputs.recipe.dtype import DType
from peftbench.inputs.recipe.parallelism import ParallelismSpec
from peftbench.inputs.recipe.quantization import QuantizationSpec
from peftbench.inputs.recipe.training import TrainingSpec
from peftbench.recipes import axolotl_does
from peftbench.recipes.lora import EVERY_LINEAR, attention_of, checked_dtype, is_padded, target_names, targets
from peftbench.recipes.settings import Reading, Settings
from peftbench.recipes.sharding import (
    checkpoints_by_fsdp,
    deepspeed_values,
    fsdp_values,
    precision_of,
    read_trainer,
    under_deepspeed,
)  # fmt: skip

NAME = "axolotl"
LIGER = "axolotl.integrations.liger.LigerPlugin"
_CUT = "axolotl.integrations.cut_cross_entropy.CutCrossEntropyPlugin"
_OWN_OPTIMIZERS = (
    "optimi_adamw", "ao_adamw_4bit", "ao_adamw_8bit", "ao_adamw_fp8", "adopt_adamw", "adamc", "came_pytorch", "muon",
    "dion", "sinkgd", "polora", "flash_adamw", "flash_adam", "flash_sgd", "flash_sgdw", "flash_lion",
    "q_galore_adamw8bit",
)  # fmt: skip
"""CustomSupportedOptimizers of schemas/enums.py."""
_FLAGS = {
    "flash_attention": "flash_attention_2", "sdp_attention": "sdpa", "eager_attention": "eager",
    "xformers_attention": "xformers", "sage_attention": "sage", "flex_attention": "flex_attention",
}  # fmt: skip
"""Older switches, and the attn_implementation that each stands for (schemas/enums.py)."""


def read(settings: Settings) -> Reading:
    """The recipe that axolotl would run. Raises SpecError for values that cannot be."""
    _check_kind(settings)
    dtype, autocast = _dtype(settings)
    attention, notes = attention_of(_attention(settings), settings)
    micro = settings.count("micro_batch_size", 1)
    packed, filled = settings.flag("sample_packing", False), settings.flag("pad_to_sequence_len", False)
    loss, kernels, kernel_notes = _kernels(settings)
    quantization = _quantization(settings, dtype)
    recipe = TrainingSpec(
        sequence_length=settings.count("sequence_len", 512),
        padded=is_padded(packed, micro) or (filled and not packed),
        micro_batch_size=micro,
        gradient_accumulation_steps=_accumulation(settings, micro),
        gradient_checkpointing=_checkpointing(settings),
        use_reentrant=_reentrant(settings),
        dtype=dtype,
        autocast=autocast,
        optimizer=_optimizer(settings),
        attention=attention,
        loss=loss,
        fused_kernels=kernels,
        adapter=_adapter(settings, dtype, quantization is not None),
        quantization=quantization,
        parallelism=_parallelism(settings),
    )
    said = (*notes, *kernel_notes, *axolotl_does.notes(settings, recipe))
    return Reading(NAME, settings.word_or_none("base_model"), under_deepspeed(recipe), said)


def _check_kind(settings: Settings) -> None:
    """Refuse what trains on pairs, rollouts or classes."""
    for name in ("rl", "reward_model", "process_reward_model"):
        if settings.given(name):
            raise NoFormula(f"axolotl's {name} trains on pairs, rollouts or scores, which is not modelled.", "Drop it.")


def _optimizer(settings: Settings) -> str:
    """A name of TrainingArguments.optim, or one of axolotl's own."""
    name = settings.word("optimizer", "adamw_torch_fused")
    if name in _OWN_OPTIMIZERS:
        raise NoFormula(f"axolotl's optimizer {name} has states that are not derived here.", "Try adamw_torch_fused.")
    return name


def _dtype(settings: Settings) -> tuple[DType, bool]:
    """bf16 is "auto", which is on where the card has it; fp16 comes next. Both run under autocast."""
    fp16 = settings.flag("fp16", False)
    bf16 = not fp16 if settings.given("bf16") == "auto" else settings.flag("bf16", not fp16)
    pure, eight = settings.flag("bfloat16", False), settings.flag("load_in_8bit", False)
    half = settings.flag("float16", False) or eight  # what is left beside 8-bit weights is float16 then
    if bf16 or fp16:
        return (DType.BFLOAT16 if bf16 else DType.FLOAT16), True
    return DType.BFLOAT16 if pure else DType.FLOAT16 if half else DType.FLOAT32, False


def _attention(settings: Settings) -> str:
    switched = [name for flag, name in _FLAGS.items() if settings.flag(flag, False)]
    return settings.word("attn_implementation", switched[0] if switched else "sdpa")


def _accumulation(settings: Settings, micro: int) -> int:
    """batch_size is the total of a GPU: micro_batch_size times the steps."""
    total = settings.count("batch_size", micro)
    return settings.count("gradient_accumulation_steps", max(total // micro, 1))


def _checkpointing(settings: Settings) -> bool:
    """Off by default; the words "offload" and "offload_disk" are on. FSDP may have its own."""
    value = settings.given("gradient_checkpointing")
    on = value in ("offload", "offload_disk") or settings.flag("gradient_checkpointing", False)
    return on or checkpoints_by_fsdp(settings)


def _reentrant(settings: Settings) -> bool:
    """Axolotl sets use_reentrant where gradient_checkpointing_kwargs are left out and all weights are trained on."""
    if settings.given("gradient_checkpointing_kwargs") is None:
        own = settings.given("gradient_checkpointing") and not settings.values.get("unfrozen_parameters")
        return bool(own)
    return settings.section("gradient_checkpointing_kwargs").flag("use_reentrant", False)


def _kernels(settings: Settings) -> tuple[str, str, tuple[str, ...]]:
    """Loss and fused kernels of the plugins."""
    plugins = settings.names("plugins") or ()
    swiglu = settings.flag("liger_glu_activation", settings.flag("liger_swiglu", False))
    norm = settings.flag("liger_rms_norm", False)
    rope = settings.flag("liger_rope", False)
    fused = settings.flag("liger_fused_linear_cross_entropy", False)
    cut = settings.flag("cut_cross_entropy", _CUT in plugins)
    said = "cut_cross_entropy is priced as Liger's fused loss: neither holds the logits."
    notes: tuple[str, ...] = (said,) if cut else ()
    known = (LIGER, _CUT, LIGER.replace(".LigerPlugin", ".plugin.LigerPlugin"))
    notes += tuple(f"plugin {name} is unknown here and is not priced." for name in plugins if name not in known)
    kernels = "liger" if norm and swiglu else "norm-rope" if norm and rope else "none"
    return ("liger" if fused or cut else "transformers"), kernels, notes


def _adapter(settings: Settings, dtype: DType, quantized: bool) -> AdapterSpec | None:
    """LoRA; PEFT makes adapters float32, on quantized weights even where autocast_adapter_dtype is off."""
    kind = settings.word_or_none("adapter")
    if kind is None:
        return None
    if kind not in ("lora", "qlora"):
        raise NoFormula(f"adapter {kind[:40]} of axolotl is not modelled.", "lora and qlora are.")
    upcast = settings.flag("peft_autocast_adapter_dtype", True)
    names = target_names("lora_target_modules", settings)
    everywhere = settings.flag("lora_target_linear", False) or names == EVERY_LINEAR
    return AdapterSpec(
        r=_rank(settings),
        target_modules=EVERY_LINEAR if everywhere else names,
        use_dora=settings.flag("peft_use_dora", False),
        use_rslora=settings.flag("peft_use_rslora", False),
        dropout=settings.share("lora_dropout", 0.0),
        dtype=DType.FLOAT32 if upcast or quantized else dtype,
    )


def _rank(settings: Settings) -> int:
    """Axolotl has no default, and hands PEFT nothing, which PEFT refuses."""
    if settings.given("lora_r") is None:
        raise SpecError("the axolotl file has an adapter and no lora_r, for which axolotl has no default.", "Add one.")
    return settings.count("lora_r", 1)


def _quantization(settings: Settings, dtype: DType) -> QuantizationSpec | None:
    """NF4 with double quantization unless bnb_config_kwargs say otherwise; norms are cast back after kbit training."""
    four, eight = settings.flag("load_in_4bit", False), settings.flag("load_in_8bit", False)
    more = settings.section("bnb_config_kwargs")
    compute = more.word("bnb_4bit_compute_dtype", dtype.value)
    if not (four or eight):
        return None
    return QuantizationSpec(
        quant_type=more.word("bnb_4bit_quant_type", "nf4") if four else "int8",
        double_quant=more.flag("bnb_4bit_use_double_quant", True),
        compute_dtype=checked_dtype("bnb_4bit_compute_dtype", compute, more),
    )


def _parallelism(settings: Settings) -> ParallelismSpec:
    """DeepSpeed written out, or FSDP; how many GPUs is the launcher's business."""
    settings.given("fsdp_version")
    return read_trainer(settings)


# ── writing ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def values(model: str, recipe: TrainingSpec, dataset: str) -> dict[str, object]:
    """The file that comes nearest to the recipe."""
    packed = not recipe.padded and recipe.micro_batch_size > 1
    checkpointing = {"gradient_checkpointing_kwargs": {"use_reentrant": recipe.use_reentrant}}
    return {
        "base_model": model,
        **_adapter_values(recipe),
        "datasets": [{"path": dataset, "type": "completion", "ds_type": "json"}],
        "output_dir": "out",
        "sequence_len": recipe.sequence_length,
        "sample_packing": packed,
        "pad_to_sequence_len": packed or recipe.padded,
        "micro_batch_size": recipe.micro_batch_size,
        "gradient_accumulation_steps": recipe.gradient_accumulation_steps,
        "num_epochs": 1,
        "learning_rate": 0.0002,
        "optimizer": recipe.optimizer,
        **_precision(recipe),
        "gradient_checkpointing": recipe.gradient_checkpointing,
        **(checkpointing if recipe.gradient_checkpointing else {}),
        "attn_implementation": recipe.attention,
        **_kernel_values(recipe),
        **_sharding_values(recipe),
    }


def _precision(recipe: TrainingSpec) -> dict[str, object]:
    """bf16 and fp16 are autocast; bfloat16 and float16 are the dtype of the weights alone."""
    autocast = recipe.autocast
    halves = {
        "bf16": autocast and recipe.dtype is DType.BFLOAT16,
        "fp16": autocast and recipe.dtype is DType.FLOAT16,
    }
    if autocast or recipe.dtype is DType.FLOAT32:
        return {**halves}
    return {**halves, recipe.dtype.value: True}


def _adapter_values(recipe: TrainingSpec) -> dict[str, object]:
    adapter, quantization = recipe.adapter, recipe.quantization
    if adapter is None:
        return {}
    four = quantization is not None and quantization.four_bit
    values: dict[str, object] = {
        "adapter": "qlora" if four else "lora",
        "load_in_4bit": four,
        "load_in_8bit": quantization is not None and not four,
        "lora_r": adapter.r or 8,
        "lora_alpha": 2 * (adapter.r or 8),
        "lora_dropout": adapter.dropout,
        "peft_use_dora": adapter.use_dora,
        "peft_use_rslora": adapter.use_rslora,
        "peft_autocast_adapter_dtype": adapter.dtype is DType.FLOAT32,
        **dict.fromkeys(axolotl_does.LORA_KERNELS[:3], False),
    }
    where = {"lora_target_linear": True} if adapter.target_modules == EVERY_LINEAR else {
        "lora_target_modules": targets(adapter, "")
    }  # fmt: skip
    return {**values, **where, **(_bitsandbytes_values(quantization) if quantization and four else {})}


def _bitsandbytes_values(quantization: QuantizationSpec) -> dict[str, object]:
    kwargs = {
        "bnb_4bit_quant_type": quantization.quant_type,
        "bnb_4bit_use_double_quant": quantization.double_quant,
        "bnb_4bit_compute_dtype": quantization.compute_dtype.value,
    }
    return {"bnb_config_kwargs": kwargs}


def _kernel_values(recipe: TrainingSpec) -> dict[str, object]:
    fused, kernels = recipe.loss == "liger", recipe.fused_kernels
    if not fused and kernels == "none":
        return {}
    return {
        "plugins": [LIGER],
        "liger_rope": kernels != "none",
        "liger_rms_norm": kernels != "none",
        "liger_glu_activation": kernels == "liger",
        "liger_fused_linear_cross_entropy": fused,
    }


def _sharding_values(recipe: TrainingSpec) -> dict[str, object]:
    parallelism = recipe.parallelism
    if parallelism.strategy.startswith("zero"):
        return {"deepspeed": deepspeed_values(parallelism, precision_of(recipe))}
    if parallelism.strategy.startswith("fsdp"):
        return {"fsdp_version": 2, "fsdp_config": fsdp_values(parallelism)}
    return {}
