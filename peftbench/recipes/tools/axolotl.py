"""Axolotl's YAML: its settings with its own defaults.

Names and defaults are those of axolotl 0.19: utils/schemas/{config,peft,training,fsdp}.py; what they lead to is in
utils/config/__init__.py (dtypes, reentrant checkpointing) and loaders/model.py (bitsandbytes, float32 norms).
"""

from __future__ import annotations

from peftbench.base.errors import NoFormula, SpecError
from peftbench.inputs.recipe import AdapterSpec, DType, TrainingSpec
from peftbench.recipes.kinds import COUNT, DTYPE, EVERY_LINEAR, FLAG, SHARE, WORD, Kind, attention_of, targets_of
from peftbench.recipes.rows import DATASET, Found, Row, Rule, Tool, alpha, fixed, give, half, packed, take
from peftbench.recipes.settings import Settings, Unread
from peftbench.recipes.sharding import checkpoints_by_fsdp, fsdp_settings, give_sharding, take_sharding
from peftbench.recipes.tools.axolotl_notes import LORA_KERNELS, notes
from peftbench.recipes.tools.trainer import checkpointing_settings

_LIGER = "axolotl.integrations.liger.LigerPlugin"
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


def _check_kind(settings: Settings, _found: Found) -> Found:
    """Refuse what trains on pairs, rollouts or classes."""
    for name in ("rl", "reward_model", "process_reward_model"):
        if settings.given(name):
            raise NoFormula(f"axolotl's {name} trains on pairs, rollouts or scores, which is not modelled.", "Drop it.")
    return {}


def _take_optimizer(settings: Settings, name: str, default: str) -> str:
    """A name of TrainingArguments.optim; axolotl has more of its own."""
    optimizer = settings.word(name, default)
    if optimizer in _OWN_OPTIMIZERS:
        what = f"axolotl's optimizer {optimizer} has states that are not derived here."
        raise NoFormula(what, "Try adamw_torch_fused.")
    return optimizer


def _take_precision(settings: Settings, _found: Found) -> Found:
    """bf16 is "auto", which is on where the card has it; fp16 comes next. Both run under autocast."""
    fp16 = settings.flag("fp16", False)
    bf16 = not fp16 if settings.given("bf16") == "auto" else settings.flag("bf16", not fp16)
    pure, eight = settings.flag("bfloat16", False), settings.flag("load_in_8bit", False)
    float16 = settings.flag("float16", False) or eight  # what is left beside 8-bit weights is float16 then
    if bf16 or fp16:
        return {"dtype": DType.BFLOAT16 if bf16 else DType.FLOAT16, "autocast": True}
    return {"dtype": DType.BFLOAT16 if pure else DType.FLOAT16 if float16 else DType.FLOAT32, "autocast": False}


def _give_precision(recipe: TrainingSpec) -> dict[str, object]:
    """bf16 and fp16 are autocast; bfloat16 and float16 are the dtype of the weights alone."""
    whole = recipe.dtype is DType.FLOAT32
    alone = {} if recipe.autocast or whole else {recipe.dtype.value: True}
    return {"bf16": half(recipe) == "bf16" and not whole, "fp16": half(recipe) == "fp16", **alone}


def _take_packing(settings: Settings, _found: Found) -> Found:
    return {"packed": settings.flag("sample_packing", False), "filled": settings.flag("pad_to_sequence_len", False)}


def _give_packing(recipe: TrainingSpec) -> dict[str, object]:
    return {"sample_packing": packed(recipe), "pad_to_sequence_len": packed(recipe) or recipe.padded}


def _take_accumulation(settings: Settings, found: Found) -> Found:
    """batch_size is the total of a GPU: micro_batch_size times the steps."""
    micro = found["micro_batch_size"]
    total = settings.count("batch_size", micro)
    steps = settings.count("gradient_accumulation_steps", max(total // micro, 1))
    return {"gradient_accumulation_steps": steps}


def _take_attention(settings: Settings, name: str, default: str) -> str:
    switched = [word for flag, word in _FLAGS.items() if settings.flag(flag, False)]
    return attention_of(settings.word(name, switched[0] if switched else default), settings)


def _take_checkpointing(settings: Settings, _found: Found) -> Found:
    """Off by default; the words "offload" and "offload_disk" are on. FSDP may have its own.

    Axolotl sets use_reentrant where gradient_checkpointing_kwargs are left out and all weights are trained on.
    """
    value = settings.given("gradient_checkpointing")
    on = value in ("offload", "offload_disk") or settings.flag("gradient_checkpointing", False)
    reentrant = bool(value and not settings.values.get("unfrozen_parameters"))
    if settings.given("gradient_checkpointing_kwargs") is not None:
        reentrant = settings.section("gradient_checkpointing_kwargs").flag("use_reentrant", False)
    return {"gradient_checkpointing": on or checkpoints_by_fsdp(settings), "use_reentrant": reentrant}


def _take_kernels(settings: Settings, _found: Found) -> Found:
    """Loss and fused kernels of the plugins."""
    plugins = settings.names("plugins") or ()
    swiglu = settings.flag("liger_glu_activation", settings.flag("liger_swiglu", False))
    norm, rope = settings.flag("liger_rms_norm", False), settings.flag("liger_rope", False)
    fused = settings.flag("liger_fused_linear_cross_entropy", False)
    cut = settings.flag("cut_cross_entropy", _CUT in plugins)
    if cut:
        settings.said.append("cut_cross_entropy is priced as Liger's fused loss: neither holds the logits.")
    known = (_LIGER, _CUT, _LIGER.replace(".LigerPlugin", ".plugin.LigerPlugin"))
    settings.said += [Unread(f"plugin {name}", "is unknown here") for name in plugins if name not in known]
    kernels = "liger" if norm and swiglu else "norm-rope" if norm and rope else "none"
    return {"loss": "liger" if fused or cut else "transformers", "fused_kernels": kernels}


def _give_kernels(recipe: TrainingSpec) -> dict[str, object]:
    fused, kernels = recipe.loss == "liger", recipe.fused_kernels
    if not fused and kernels == "none":
        return {}
    return {
        "plugins": [_LIGER],
        "liger_rope": kernels != "none",
        "liger_rms_norm": kernels != "none",
        "liger_glu_activation": kernels == "liger",
        "liger_fused_linear_cross_entropy": fused,
    }


def _take_adapter(settings: Settings, _found: Found) -> Found:
    """LoRA; PEFT makes adapters float32, on quantized weights even where autocast_adapter_dtype is off."""
    quantization, kind = _take_quantization(settings), settings.word_or_none("adapter")
    if kind is None:
        return {"quantization": quantization}
    if kind not in ("lora", "qlora"):
        raise NoFormula(f"adapter {kind[:40]} of axolotl is not modelled.", "lora and qlora are.")
    upcast = {"dtype": DType.FLOAT32} if quantization is not None else {}
    return {"quantization": quantization, "adapter": {**take(_ADAPTER, settings), **upcast}}


def _take_quantization(settings: Settings) -> Found | None:
    """bitsandbytes on the fly; norms are cast back after kbit training."""
    four, eight = settings.flag("load_in_4bit", False), settings.flag("load_in_8bit", False)
    section = settings.section("bnb_config_kwargs")
    if not (four or eight):
        return None
    return {**take(_FOUR_BIT, section), **({} if four else {"quant_type": "int8"})}


def _give_adapter(recipe: TrainingSpec) -> dict[str, object]:
    adapter, quantization = recipe.adapter, recipe.quantization
    if adapter is None:
        return {}
    four = quantization is not None and quantization.four_bit
    return {
        "adapter": "qlora" if four else "lora",
        "load_in_4bit": four,
        "load_in_8bit": quantization is not None and not four,
        **give(_ADAPTER, adapter),
        **({"bnb_config_kwargs": give(_FOUR_BIT, quantization)} if four else {}),
    }


def _take_rank(settings: Settings, name: str, default: int) -> int:
    """Axolotl has no default, and hands PEFT nothing, which PEFT refuses."""
    if settings.given(name) is None:
        raise SpecError(f"the axolotl file has an adapter and no {name}, for which axolotl has no default.", "Add one.")
    return settings.count(name, default)


def _take_dtype(settings: Settings, _found: Found) -> Found:
    return {"dtype": DType.FLOAT32 if settings.flag("peft_autocast_adapter_dtype", True) else None}


def _take_targets(settings: Settings, _found: Found) -> Found:
    names = targets_of(settings, "lora_target_modules", None)
    return {"target_modules": EVERY_LINEAR if settings.flag("lora_target_linear", False) else names}


def _give_targets(adapter: AdapterSpec) -> dict[str, object]:
    names = adapter.target_modules
    return {"lora_target_linear": True} if names == EVERY_LINEAR else {"lora_target_modules": list(names or ())}


def _take_sharding(settings: Settings, found: Found) -> Found:
    """DeepSpeed written out, or FSDP; how many GPUs is the launcher's business."""
    settings.given("fsdp_version")
    return take_sharding(settings, found)


def _give_sharding(recipe: TrainingSpec) -> dict[str, object]:
    given = give_sharding(recipe)
    if given.pop("fsdp", False):
        given |= {"fsdp_version": 2, "fsdp_config": fsdp_settings(recipe.parallelism)}
    return given


_ADAPTER = (
    Row("lora_r", "r", Kind(_take_rank), 8),
    alpha(8, lambda r: None),
    Row("lora_dropout", "dropout", SHARE, 0.0),
    Row("peft_use_dora", "use_dora", FLAG, False),
    Row("peft_use_rslora", "use_rslora", FLAG, False),
    Rule(_take_dtype, lambda adapter: {"peft_autocast_adapter_dtype": adapter.dtype is DType.FLOAT32}),
    fixed(**dict.fromkeys(LORA_KERNELS[:3], False)),
    Rule(_take_targets, _give_targets),
)
_FOUR_BIT = (
    Row("bnb_4bit_quant_type", "quant_type", WORD, "nf4"),
    Row("bnb_4bit_use_double_quant", "double_quant", FLAG, True),
    Row("bnb_4bit_compute_dtype", "compute_dtype", DTYPE, None),
)
TOOL = Tool("axolotl", "base_model", (
    Rule(_check_kind),
    Rule(_take_adapter, _give_adapter),
    fixed(datasets=[{"path": DATASET, "type": "completion", "ds_type": "json"}], output_dir="out"),
    Row("sequence_len", "sequence_length", COUNT, 512),
    Rule(_take_packing, _give_packing),
    Row("micro_batch_size", "micro_batch_size", COUNT, 1),
    Rule(_take_accumulation, lambda recipe: {"gradient_accumulation_steps": recipe.gradient_accumulation_steps}),
    fixed(num_epochs=1, learning_rate=0.0002),
    Row("optimizer", "optimizer", Kind(_take_optimizer), "adamw_torch_fused"),
    Rule(_take_precision, _give_precision),
    Rule(_take_checkpointing, checkpointing_settings),
    Row("attn_implementation", "attention", Kind(_take_attention), "sdpa"),
    Rule(_take_kernels, _give_kernels),
    Rule(_take_sharding, _give_sharding),
), notes=notes)  # fmt: skip
