"""Recipes that several GPUs share, for the estimate and the dry run to agree on: models, methods, counts, settings.

Models of more than 2 billion parameters are cut to six layers, so that a run takes seconds; widths are theirs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from peftbench.catalog.gpus import find_gpu
from peftbench.catalog.models import find_config
from peftbench.decide.card import settle_training
from peftbench.decide.from_options import training_recipes
from peftbench.dryrun.session import DryRunSession
from peftbench.dryrun.workload import workload_of
from peftbench.estimate.training import estimate_training
from peftbench.inputs.model.config_json import read_config
from peftbench.inputs.recipe import TrainingSpec
from peftbench.memory import MemoryProfile, Part

GPU = find_gpu("a100-80gb")
LAYERS = 6
KEPT = {"gradient_checkpointing": False}
PLAIN = {"loop": "plain", "autocast": False}
WAITS = {"gradient_accumulation_steps": 4}
LONG = {"sequence_length": 4096}

Recipe = tuple[str, str, str, int, dict[str, Any]]
"""Model, strategy, method, GPUs and other options."""

RECIPES: tuple[Recipe, ...] = (
    ("llama-3.2-1b", "fsdp", "full", 4, {}),
    ("llama-3.2-1b", "fsdp", "full", 2, KEPT),
    ("llama-3.2-1b", "fsdp", "full", 4, WAITS),
    ("llama-3.2-1b", "fsdp", "full", 8, {**WAITS, "sync_each_batch": True}),
    ("llama-3.2-1b", "fsdp", "full", 4, {"cpu_offload": True}),
    ("llama-3.2-1b", "fsdp", "full", 2, {"loss": "liger"}),
    ("llama-3.2-1b", "fsdp", "full", 16, {"optimizer": "adamw_torch", **LONG}),
    ("llama-3.2-1b", "fsdp-grad-op", "full", 4, {}),
    ("llama-3.2-1b", "fsdp", "lora", 2, {}),
    ("llama-3.2-1b", "fsdp", "lora", 8, KEPT),
    ("llama-3.2-1b", "fsdp", "lora", 2, {"cpu_offload": True, "micro_batch_size": 4}),
    ("llama-3.2-1b", "fsdp", "qlora", 2, {}),
    ("llama-3.2-1b", "fsdp", "qlora", 4, {**KEPT, **WAITS}),
    ("llama-3.2-1b", "ddp", "full", 2, {}),
    ("llama-3.2-1b", "ddp", "full", 4, KEPT),
    ("llama-3.2-1b", "ddp", "lora", 2, {}),
    ("llama-3.2-1b", "ddp", "qlora", 8, {}),
    ("8b", "fsdp", "full", 2, {}),
    ("8b", "fsdp", "full", 16, LONG),
    ("8b", "fsdp", "full", 64, KEPT),
    ("8b", "fsdp", "full", 8, WAITS),
    ("8b", "fsdp", "full", 8, {"loss": "liger", "micro_batch_size": 2}),
    ("8b", "fsdp", "full", 8, {"loss": "liger", "sequence_length": 512}),
    ("8b", "fsdp", "full", 8, {"sequence_length": 256}),
    ("8b", "fsdp", "full", 4, {"dtype": "float32"}),
    ("8b", "fsdp", "full", 8, PLAIN),
    ("8b", "fsdp", "full", 8, {"cpu_offload": True, "sequence_length": 512}),
    ("8b", "fsdp-grad-op", "full", 8, WAITS),
    ("8b", "fsdp-grad-op", "lora", 8, {}),
    ("8b", "fsdp", "lora", 4, {}),
    ("8b", "fsdp", "lora", 64, {"loss": "liger", "sequence_length": 512}),
    ("8b", "fsdp", "lora", 8, {**KEPT, **LONG}),
    ("8b", "fsdp", "lora", 4, {"adapter_dtype": "bfloat16", "r": 64, "target_modules": "all-linear"}),
    ("8b", "fsdp", "lora", 4, PLAIN),
    ("8b", "fsdp", "lora", 4, {"attention": "eager", "sequence_length": 1024}),
    ("8b", "fsdp", "qlora", 2, {}),
    ("8b", "fsdp", "qlora", 8, {**KEPT, "double_quant": False}),
    ("8b", "fsdp", "qlora", 4, {"loss": "liger", "upcast_unquantized": True, "sequence_length": 512}),
    ("8b", "ddp", "full", 8, {}),
    ("8b", "ddp", "full", 8, {**PLAIN, **WAITS}),
    ("8b", "ddp", "full", 8, {"loss": "liger", "sequence_length": 512}),
    ("8b", "ddp", "lora", 4, {}),
    ("8b", "ddp", "lora", 4, {**KEPT, "micro_batch_size": 2}),
    ("8b", "ddp", "lora", 4, {"loss": "fused", **LONG}),
    ("8b", "ddp", "lora", 4, {**PLAIN, "attention": "eager", "sequence_length": 1024}),
    ("8b", "ddp", "qlora", 4, {"optimizer": "paged_adamw_8bit"}),
    ("8b", "ddp", "qlora", 4, {**KEPT, "upcast_unquantized": True}),
    ("70b", "fsdp", "full", 64, {}),
    ("70b", "fsdp", "lora", 8, LONG),
    ("70b", "fsdp", "qlora", 2, {}),
    ("Qwen/Qwen3-4B", "fsdp", "full", 8, {}),
    ("Qwen/Qwen3-4B", "fsdp", "lora", 3, {}),
    ("Qwen/Qwen3-4B", "fsdp", "qlora", 2, {}),
    ("Qwen/Qwen3-4B", "ddp", "lora", 2, {"r": 64, "target_modules": "all-linear"}),
    ("Qwen/Qwen2.5-7B", "fsdp", "full", 8, {}),
    ("Qwen/Qwen2.5-7B", "fsdp", "lora", 8, {"padded": True}),
    ("mistralai/Mistral-7B-v0.1", "fsdp", "full", 8, {"micro_batch_size": 2, "attention": "flash_attention_2"}),
    ("mistralai/Mistral-7B-v0.1", "fsdp", "lora", 4, {"use_dora": True}),
    ("mistralai/Mistral-7B-v0.1", "ddp", "full", 2, {"sequence_length": 512}),
    ("google/gemma-2-2b", "fsdp", "full", 4, {}),
    ("google/gemma-2-2b", "fsdp", "lora", 4, {}),
    ("google/gemma-2-2b", "ddp", "lora", 2, {}),
    ("microsoft/Phi-3-mini-4k-instruct", "fsdp", "full", 8, {}),
    ("microsoft/Phi-3-mini-4k-instruct", "fsdp", "qlora", 2, {}),
    ("gpt2", "fsdp", "full", 4, {"sequence_length": 1024, "micro_batch_size": 4}),
    ("Qwen/Qwen3-30B-A3B", "fsdp", "lora", 8, {}),
    ("Qwen/Qwen3-30B-A3B", "fsdp", "full", 64, {}),
)  # fmt: skip


class Compared(NamedTuple):
    """The estimate and the dry run of one recipe."""

    name: str
    estimated: MemoryProfile
    traced: MemoryProfile

    @property
    def error(self) -> float:
        """Allocated memory, as a share of the dry run's."""
        return self.estimated.allocated_bytes / self.traced.allocated_bytes - 1

    @property
    def reserved_error(self) -> float:
        """The same of reserved memory."""
        return self.estimated.reserved_bytes / self.traced.reserved_bytes - 1

    @property
    def in_band(self) -> bool:
        """Whether the dry run reserves what the estimate's band allows."""
        peak = [c for c in self.estimated.peak if c.part not in (Part.CONTEXT, Part.NCCL)]
        return sum(c.low_bytes for c in peak) <= self.traced.reserved_bytes <= sum(c.high_bytes for c in peak)


def compare(session: DryRunSession, recipe: Recipe) -> Compared:
    """Both tiers on an A100."""
    model_name, strategy, method, gpus, given = recipe
    config, training, estimated = estimate_of(recipe)
    name = f"{model_name} {method} {strategy} × {gpus} " + " ".join(f"{key}={value}" for key, value in given.items())
    return Compared(name, estimated, session.run(workload_of(config, training, GPU), GPU).profile)


def estimate_of(recipe: Recipe) -> tuple[Any, TrainingSpec, MemoryProfile]:
    """The config, the recipe as it runs on an A100, and its estimate."""
    model_name, strategy, method, gpus, given = recipe
    named = find_config(model_name)
    config = named.config if named.spec.num_hidden_layers < 20 and "1b" in model_name else cut(named.config)
    model = read_config(config, model_name, "test")
    options = {"gpus": gpus, "parallel": strategy, **given}
    training, _ = settle_training(model, training_recipes((method,), options)[0], GPU)
    return config, training, estimate_training(model, training, GPU)


def cut(config: Any) -> dict[str, Any]:
    """The config with six layers, whatever its architecture calls them."""
    lists = ("layer_types", "no_rope_layers")
    shorter = {name: config[name][:LAYERS] for name in lists if config.get(name)}
    count = {name: LAYERS for name in ("num_hidden_layers", "n_layer") if name in config}
    return {**config, **shorter, **count}
