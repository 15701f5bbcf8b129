"""The first lines of an answer: which model, which card, and every assumption about the recipe."""

from __future__ import annotations

from peftbench.base.units import gib, human_count
from peftbench.decide.plan.plan import Plan
from peftbench.estimate.peft_types.table import METHODS
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.inputs.model.spec import ModelSpec, OtherModel
from peftbench.inputs.model.weights import num_parameters
from peftbench.inputs.recipe.adapter import ALL_LINEAR, AdapterSpec
from peftbench.inputs.recipe.inference import InferenceSpec
from peftbench.inputs.recipe.parallelism import ParallelismSpec
from peftbench.inputs.recipe.quantization import QuantizationSpec
from peftbench.inputs.recipe.training import TrainingSpec

DOT = " · "


def model_title(model: ModelSpec | OtherModel) -> str:
    """What the name resolved to, and its size."""
    return f"{model.name}{DOT}{human_count(num_parameters(model))} parameters"


def card_title(gpu: GpuSpec | None) -> str:
    """The card, what torch sees of it, and what others hold."""
    if gpu is None:
        return "no card"
    of = f" of {gpu.nominal_gb} GB" if gpu.nominal_gb else ""
    name = gpu.product if gpu.name == "local" else gpu.name
    used = (
        f", {gib(gpu.in_use_bytes)} in use, {gib(gpu.memory_bytes - gpu.in_use_bytes)} free now"
        if gpu.name == "local"
        else ""
    )
    return f"{name}{DOT}{gib(gpu.memory_bytes)} GiB visible{of}{used}"


def assumptions(plans: list[Plan]) -> list[str]:
    """The recipe that all plans share, then one piece for each adapter and quantization among them.

    Where each has as many GPUs as it needs, the counts stand beside the methods instead.
    """
    recipe = plans[0].recipe
    shared = _training(recipe) if isinstance(recipe, TrainingSpec) else _inference(recipe)
    adapters = dict.fromkeys(plan.recipe.adapter for plan in plans)
    quantizations = dict.fromkeys(plan.recipe.quantization for plan in plans)
    return [
        *(_parallelism(recipe.parallelism) if not several_counts(plans) else ()),
        *shared,
        *(_adapter(adapter, plans) for adapter in adapters if adapter),
        *(_quantization(quantization) for quantization in quantizations if quantization),
    ]


def several_counts(plans: list[Plan]) -> bool:
    """Whether the plans are of different numbers of GPUs, as --gpus auto makes them."""
    return len({plan.recipe.parallelism for plan in plans}) > 1


def _parallelism(parallelism: ParallelismSpec) -> list[str]:
    """How many GPUs share the model; the memory shown is that of one of them."""
    if parallelism.gpus == 1 and parallelism.strategy == "none":
        return []
    nodes = f" in {parallelism.nodes} nodes" if parallelism.nodes > 1 else ""
    offload = " with CPU offload" if parallelism.cpu_offload else ""
    each = "each of " if parallelism.gpus > 1 else ""
    return [f"{each}{parallelism.counted}{nodes}", f"{parallelism.strategy}{offload}"]


def _training(recipe: TrainingSpec) -> list[str]:
    shown = [
        f"sequence {recipe.sequence_length}{' padded' if recipe.padded else ''}",
        f"micro-batch {recipe.micro_batch_size}",
        f"accumulation {recipe.gradient_accumulation_steps}" if recipe.gradient_accumulation_steps > 1 else "",
        _checkpointing(recipe),
        f"{recipe.dtype} {'autocast' if recipe.autocast else 'without autocast'}",
        recipe.optimizer,
        recipe.attention,
        f"{recipe.loss} loss",
        f"{recipe.fused_kernels} kernels" if recipe.fused_kernels != "none" else "",
        f"transformers {recipe.transformers}" if recipe.transformers != "5" else "",
        "plain loop" if recipe.loop == "plain" else "Trainer",
        "use_cache" if recipe.use_cache else "",
        "gradients kept" if recipe.zero_grad_keeps else "",
    ]
    return [text for text in shown if text]


def _checkpointing(recipe: TrainingSpec) -> str:
    if not recipe.gradient_checkpointing:
        return "no checkpointing"
    return "reentrant checkpointing" if recipe.use_reentrant else "checkpointing"


def _inference(recipe: InferenceSpec) -> list[str]:
    return [
        f"inference of {recipe.prompt_tokens} + {recipe.new_tokens} tokens",
        f"batch {recipe.batch_size}",
        f"{recipe.dtype}",
        recipe.attention,
    ]


def _adapter(adapter: AdapterSpec, plans: list[Plan]) -> str:
    name = "LoRA" if adapter.peft_type == "lora" else adapter.peft_type
    shown = [
        name,
        "DoRA" if adapter.use_dora else "",
        "rsLoRA" if adapter.use_rslora else "",
        f"r {_rank(adapter, plans)}" if _rank(adapter, plans) else "",
        _targets(adapter),
        *(f"{key}={value}" for key, value in adapter.options),
        f"dropout {adapter.dropout}" if adapter.dropout else "",
        f"in {adapter.dtype}",
    ]
    return " ".join(text for text in shown if text)


def _targets(adapter: AdapterSpec) -> str:
    """Where the adapter sits; prompts and prefixes sit nowhere."""
    if adapter.target_modules is None:
        method = METHODS.get(adapter.peft_type)
        return "PEFT's targets" if method is None or method.each else ""
    return "all linear" if adapter.target_modules == (ALL_LINEAR,) else ",".join(adapter.target_modules)


def _rank(adapter: AdapterSpec, plans: list[Plan]) -> object:
    """The rank that is priced, PEFT's default where none was given."""
    return next(plan.options["r"] for plan in plans if plan.recipe.adapter == adapter)


def _quantization(quantization: QuantizationSpec) -> str:
    options = {
        "blocksize": f"block {quantization.blocksize}",
        "double_quant": "double quant" if quantization.double_quant else "no double quant",
        "compute_dtype": f"computes in {quantization.compute_dtype}",
    }
    shown = (quantization.quant_type, *map(options.__getitem__, quantization.scheme.options), _upcast(quantization))
    return " ".join(text for text in shown if text)


def _upcast(quantization: QuantizationSpec) -> str:
    if quantization.upcast_unquantized:
        return "upcast"
    return "norms upcast" if quantization.upcast_norms else ""
