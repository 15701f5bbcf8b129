"""The adapter of a dry run: PEFT's configuration of it, and what a dry run cannot do with it."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

from peftbench.dryrun.workload import Workload
from peftbench.inputs.recipe import TrainingSpec
from peftbench.libraries import adapter
from peftbench.libraries.adapter import MULTITASK, adapter_options, config_class
from peftbench.libraries.refusal import Refused
from peftbench.libraries.task import PEFT_TASKS, class_of, task_of

NO_CHECKPOINTING = {
    "PREFIX_TUNING": "checkpointing drops the cache that it trains",
    "CARTRIDGE": "checkpointing drops the cache that it trains",
    "POLY": "a layer that is run again is not given the tasks",
    "XLORA": "a layer that is run again is not given the weights of its adapters",
}
"""Types of PEFT 0.21 whose step fails under gradient checkpointing, on real tensors too."""

NEEDS_DATA = {
    "init_lora_weights": ("corda", "eva", "lora_ga", "loftq"),
    "prompt_tuning_init": ("TEXT", "EXACT_SOURCE_TASK", "AVERAGE_SOURCE_TASKS", "ONLY_SOURCE_SHARED"),
}
"""First values that are computed from data, another adapter or a tokenizer; any others take the same memory."""


def peft_config(workload: Workload) -> Any:
    """PEFT's configuration of the workload's adapter; raises Refused where PEFT will not have it.

    It has the options that the installed PEFT knows and that need no data.
    """
    recipe = workload.recipe
    given = adapter_options(recipe.adapter) if recipe.adapter else {}
    if workload.adapter_config:
        given = _parsed(workload.adapter_config)
    name = str(given.get("peft_type", ""))
    known = {field.name for field in fields(config_class(name))}
    options = {key: value for key, value in given.items() if key in known and value not in NEEDS_DATA.get(key, ())}
    task = _peft_task(workload)
    config = adapter.peft_config({**options, "peft_type": name}, isinstance(recipe, TrainingSpec), task)
    _refuse_what_depends_on_data(config)
    reason = NO_CHECKPOINTING.get(config.peft_type)
    if reason and isinstance(recipe, TrainingSpec) and recipe.gradient_checkpointing:
        what = f"{name.lower()} cannot be trained under gradient checkpointing: {reason}."
        raise Refused(what, "Use --no-gradient-checkpointing.")
    return config


def _peft_task(workload: Workload) -> str | None:
    """None, which wraps any model as it is, where PEFT has no task, or wraps a model of tokens around one of sound."""
    given = json.loads(workload.config)
    task = task_of(given, workload.task_spec.task_type)
    return None if class_of(given, task).main_input_name != "input_ids" else PEFT_TASKS.get(task)


def _parsed(text: str) -> dict[str, Any]:
    hint = "Pass the adapter_config.json that save_pretrained wrote."
    try:
        given = json.loads(text)
    except ValueError as error:
        raise Refused(f"the adapter's configuration is not JSON: {error}.", hint) from error
    if not isinstance(given, dict):
        raise Refused("the adapter's configuration is not a JSON object.", hint)
    return given


def takes_task_ids(model: Any) -> bool:
    """Whether every sequence has to say which of several tasks it belongs to."""
    kind = getattr(getattr(model, "active_peft_config", None), "peft_type", None)
    return str(getattr(kind, "value", kind)).lower() in MULTITASK


def virtual_tokens(model: Any) -> int:
    """How many tokens the adapter puts in front of the prompt."""
    config = getattr(model, "active_peft_config", None)
    return int(config.num_virtual_tokens) if config is not None and config.is_prompt_learning else 0


def _refuse_what_depends_on_data(config: Any) -> None:
    if config.peft_type == "XLORA" and not config.adapters:
        hint = "Pass an adapter_config.json whose adapters are folders on this machine."
        raise Refused("xlora mixes trained LoRA adapters, and none is named.", hint)
    if getattr(config, "use_dynamic_rank", False):
        hint = "Leave it out: none is larger than subspace_rank."
        raise Refused("the ranks that use_dynamic_rank chooses depend on the weights.", hint)
