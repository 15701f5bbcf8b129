"""From an AdapterSpec, or from the adapter_config.json that PEFT writes, to PEFT's own configuration class."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

from peftbench.dryrun.refusal import Refused
from peftbench.dryrun.workload import Workload
from peftbench.errors import did_you_mean
from peftbench.spec.adapter import ALL_LINEAR, AdapterSpec

TASK = "CAUSAL_LM"


def peft_config(workload: Workload) -> Any:
    """PEFT's configuration of the workload's adapter; raises Refused where PEFT will not have it."""
    if workload.adapter_config:
        given = json.loads(workload.adapter_config)
    elif workload.recipe.adapter:
        given = adapter_options(workload.recipe.adapter)
    else:
        raise ValueError("the workload has no adapter")
    return _configuration(given, trained=not hasattr(workload.recipe, "new_tokens"))


def adapter_options(adapter: AdapterSpec) -> dict[str, Any]:
    """The fields of PEFT's class that this adapter sets, those that it needs beyond the spec filled in."""
    options: dict[str, Any] = {"peft_type": adapter.peft_type.upper(), **dict(adapter.options)}
    if adapter.target_modules is not None:
        everywhere = adapter.target_modules == (ALL_LINEAR,)
        options["target_modules"] = ALL_LINEAR if everywhere else list(adapter.target_modules)
    if adapter.r is not None:
        options["init_r" if adapter.peft_type == "adalora" else "r"] = adapter.r
    for flag in ("use_dora", "use_rslora"):
        if getattr(adapter, flag):
            options[flag] = True
    if adapter.dropout:
        options["lora_dropout"] = adapter.dropout
    return _complete(adapter.peft_type, options)


def _complete(peft_type: str, options: dict[str, Any]) -> dict[str, Any]:
    """What PEFT asks for and the size does not depend on; one block size or the other, where there are two."""
    if peft_type == "adalora":
        options.setdefault("total_step", 10_000)
    if peft_type == "oft" and "r" in options:
        options["oft_block_size"] = 0
    if peft_type == "boft" and "boft_block_num" in options:
        options["boft_block_size"] = 0
    if peft_type == "supertuning" and "r" in options:
        options.setdefault("lora_alpha", 8)
    if peft_type == "trainable_tokens" and isinstance(options.get("token_indices"), str):
        options["token_indices"] = [int(index) for index in options["token_indices"].split(",")]
    if peft_type == "cpt":
        tokens = [1] * options.pop("num_virtual_tokens", 20)
        options |= {"cpt_token_ids": tokens, "cpt_mask": tokens, "cpt_tokens_type_mask": tokens}
    elif peft_type in VIRTUAL:
        options.setdefault("num_virtual_tokens", 20)
    return options


VIRTUAL = ("prompt_tuning", "multitask_prompt_tuning", "prefix_tuning", "p_tuning", "cartridge")


def _configuration(given: dict[str, Any], trained: bool) -> Any:
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING as CLASSES

    name = str(given.get("peft_type", "")).upper()
    if name not in CLASSES:
        known = sorted(str(getattr(kind, "value", kind)) for kind in CLASSES)
        raise Refused(
            f"the installed PEFT has no type {name or '(none)'}.",
            f"{did_you_mean(name, known)} It has {', '.join(known)}.".strip(),
        )
    known_fields = {field.name for field in fields(CLASSES[name])}
    options = {key: value for key, value in given.items() if key in known_fields}
    options |= {"peft_type": name, "task_type": TASK, "inference_mode": not trained}
    try:
        return CLASSES[name](**{key: value for key, value in options.items() if key != "peft_type"})
    except Exception as error:  # a configuration checks itself in any way
        raise Refused(f"PEFT refuses the adapter: {error}", "Correct its options.") from error
