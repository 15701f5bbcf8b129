"""A recipe as flat options under their command-line names: what JSON shows and where two recipes differ."""

from __future__ import annotations

from typing import NamedTuple

from peftbench.estimate.peft_types.table import METHODS, Method
from peftbench.inputs.recipe.adapter import ALL_LINEAR, AdapterSpec
from peftbench.inputs.recipe.inference import InferenceSpec
from peftbench.inputs.recipe.parallelism import ParallelismSpec, usual_nodes
from peftbench.inputs.recipe.quantization import QuantizationSpec
from peftbench.inputs.recipe.training import TrainingSpec

Value = int | float | str | bool | list[str] | dict[str, int | float | str | bool] | None
Options = dict[str, Value]

ZERO_GRADS = ("set-to-none", "keep")
"""zero_grad(set_to_none=True) and (set_to_none=False)."""

_ADAPTER = (
    "peft_type", "r", "target_modules", "adapter_dtype", "use_dora", "use_rslora", "lora_dropout",
    "num_virtual_tokens", "adapter_options",
)  # fmt: skip
_QUANTIZATION = (
    "quant_type", "blocksize", "double_quant", "compute_dtype", "upcast_unquantized", "upcast_norms",
)  # fmt: skip
METHOD_OPTIONS = frozenset((*_ADAPTER, *_QUANTIZATION))
"""Options that --method sets."""


def training_options(training: TrainingSpec) -> Options:
    """Every option of a training recipe; None where one does not apply."""
    return {
        "task": "training",
        "sequence_length": training.sequence_length,
        "padded": training.padded,
        "micro_batch_size": training.micro_batch_size,
        "gradient_accumulation_steps": training.gradient_accumulation_steps,
        "gradient_checkpointing": training.gradient_checkpointing,
        "use_reentrant": training.use_reentrant,
        "dtype": training.dtype.value,
        "autocast": training.autocast,
        "optimizer": training.optimizer,
        "attention": training.attention,
        "loss": training.loss,
        "fused_kernels": training.fused_kernels,
        "loop": training.loop,
        "use_cache": training.use_cache,
        "zero_grad": ZERO_GRADS[training.zero_grad_keeps],
        "transformers": training.transformers,
        **_parallel_options(training.parallelism),
        **_adapter_options(training.adapter),
        **_quantization_options(training.quantization),
    }


def inference_options(inference: InferenceSpec) -> Options:
    """Every option of a generation request; None where one does not apply."""
    return {
        "task": "inference",
        "prompt_tokens": inference.prompt_tokens,
        "new_tokens": inference.new_tokens,
        "batch_size": inference.batch_size,
        "dtype": inference.dtype.value,
        "attention": inference.attention,
        **_parallel_options(inference.parallelism),
        **_adapter_options(inference.adapter),
        **_quantization_options(inference.quantization),
    }


def _parallel_options(parallelism: ParallelismSpec) -> Options:
    return {
        "gpus": parallelism.gpus,
        "nodes": parallelism.nodes,
        "parallel": None if parallelism.strategy == "none" else parallelism.strategy,
        "cpu_offload": parallelism.cpu_offload,
    }


def _adapter_options(adapter: AdapterSpec | None) -> Options:
    """The adapter with the defaults of its type filled in, because they are what is priced."""
    if adapter is None:
        return dict.fromkeys(_ADAPTER)
    method = METHODS.get(adapter.peft_type, Method())  # a type without formula has what was given, no more
    options = {**method.options, **dict(adapter.options)}
    default_r = options.pop(method.rank, None) if method.rank else None
    rest = {k: v for k, v in options.items() if v is not None and k not in _ADAPTER}
    is_lora = adapter.peft_type == "lora"
    return {
        "peft_type": adapter.peft_type,
        "r": adapter.r or default_r or None,
        "target_modules": _targets(adapter.target_modules),
        "adapter_dtype": adapter.dtype.value,
        "use_dora": adapter.use_dora if is_lora else None,
        "use_rslora": adapter.use_rslora if is_lora else None,
        "lora_dropout": adapter.dropout if is_lora else None,
        "num_virtual_tokens": options.get("num_virtual_tokens"),
        "adapter_options": rest,
    }


def _targets(target_modules: tuple[str, ...] | None) -> str | list[str] | None:
    """As in PEFT's adapter_config.json: a list, "all-linear", or null for the defaults of the type."""
    if target_modules is None:
        return None
    return ALL_LINEAR if target_modules == (ALL_LINEAR,) else list(target_modules)


def _quantization_options(quantization: QuantizationSpec | None) -> Options:
    if quantization is None:
        return dict.fromkeys(_QUANTIZATION)
    has = quantization.scheme.options
    return {
        "quant_type": quantization.quant_type,
        "blocksize": quantization.blocksize,
        "double_quant": quantization.double_quant if "double_quant" in has else None,
        "compute_dtype": quantization.compute_dtype.value if "compute_dtype" in has else None,
        "upcast_unquantized": quantization.upcast_unquantized,
        "upcast_norms": quantization.upcast_norms,
    }


class Difference(NamedTuple):
    """One option that two recipes set differently."""

    option: str
    """As typed: "--micro-batch-size"."""
    before: Value
    after: Value

    @property
    def arguments(self) -> tuple[str, ...]:
        """What to type to get `after`; nothing for what no longer applies."""
        if isinstance(self.after, bool):
            return (self.option if self.after else self.option.replace("--", "--no-", 1),)
        if isinstance(self.after, dict):
            pairs = (("--adapter-option", f"{name}={value}") for name, value in self.after.items())
            return tuple(word for pair in pairs for word in pair)
        if self.after is None:
            return ()
        return (self.option, ",".join(self.after) if isinstance(self.after, list) else str(self.after))


def differences(before: TrainingSpec, after: TrainingSpec) -> tuple[Difference, ...]:
    """What to type to turn one recipe into the other; --method stands for the options that come with it."""
    old, new = training_options(before), training_options(after)
    if old["gpus"] != new["gpus"]:
        old["nodes"] = usual_nodes(after.parallelism.gpus)  # what --gpus alone would mean
    changed = [name for name in old if old[name] != new[name]]
    if before.method == after.method:
        return tuple(Difference(_typed(name), old[name], new[name]) for name in changed)
    method = Difference("--method", before.method, after.method)
    rest = (name for name in changed if name not in METHOD_OPTIONS)
    return (method, *(Difference(_typed(name), old[name], new[name]) for name in rest))


def _typed(name: str) -> str:
    return "--" + name.replace("_", "-")
