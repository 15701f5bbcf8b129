"""From an AdapterSpec to the fields of PEFT's own configuration class."""

from __future__ import annotations

from typing import Any

from peftbench.inputs.recipe.adapter import ALL_LINEAR, AdapterSpec

VIRTUAL = ("prompt_tuning", "multitask_prompt_tuning", "prefix_tuning", "p_tuning", "cartridge")
"""Types that ask for num_virtual_tokens."""
MULTITASK = ("poly", "multitask_prompt_tuning")
"""Types for which every sequence has to say which of several tasks it belongs to."""


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
        options = {"total_step": 10_000, "tinit": 1000, **options}  # ranks are cut after the steps of a dry run
    if peft_type == "oft" and "r" in options:
        options["oft_block_size"] = 0
    if peft_type == "boft" and "boft_block_num" in options:
        options["boft_block_size"] = 0
    if peft_type == "supertuning" and "r" in options:
        options.setdefault("lora_alpha", 8)
    if peft_type == "trainable_tokens" and isinstance(options.get("token_indices"), str):
        options["token_indices"] = [int(index) for index in options["token_indices"].split(",")]
    if peft_type == "cpt":
        number = options.pop("num_virtual_tokens", 20)
        kinds = [1 + index % 4 for index in range(number)]  # input template, input, output template, output
        options |= {"cpt_token_ids": [1] * number, "cpt_mask": [1] * number, "cpt_tokens_type_mask": kinds}
    elif peft_type in VIRTUAL:
        options.setdefault("num_virtual_tokens", 20)
    return options
