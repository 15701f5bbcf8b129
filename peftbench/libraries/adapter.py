"""What both tiers ask of PEFT: from an AdapterSpec to PEFT's own configuration class, and an adapter's type."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from peftbench.base.errors import did_you_mean
from peftbench.inputs.recipe import ALL_LINEAR, AdapterSpec, DType
from peftbench.inputs.recipe.adapter import NAMED_AS_PEFT, NO_FEEDFORWARD
from peftbench.libraries.refusal import Refused, in_a_line

TASK = "CAUSAL_LM"
VIRTUAL = ("prompt_tuning", "multitask_prompt_tuning", "prefix_tuning", "p_tuning", "cartridge")
"""Types that ask for num_virtual_tokens."""
HEADS = {"TOKEN_CLS": ("classifier", "score"), "QUESTION_ANS": ("qa_outputs",)}
"""New layers that are trained whole beside the adapter, which PEFT leaves out of all-linear for SEQ_CLS only."""
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
    for option in NAMED_AS_PEFT:
        if getattr(adapter, option.field) != option.default:
            options[option.name] = getattr(adapter, option.field)
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
    if peft_type == "ia3" and options.get("feedforward_modules"):
        named = options["feedforward_modules"]
        options["feedforward_modules"] = [] if named == NO_FEEDFORWARD else named.split(",")
    if peft_type == "adaption_prompt":
        options.setdefault("adapter_len", 10)
    if peft_type == "cpt":
        number = options.pop("num_virtual_tokens", 20)
        kinds = [1 + index % 4 for index in range(number)]  # input template, input, output template, output
        options |= {"cpt_token_ids": [1] * number, "cpt_mask": [1] * number, "cpt_tokens_type_mask": kinds}
    elif peft_type in VIRTUAL:
        options.setdefault("num_virtual_tokens", 20)
    return options


def config_class(peft_type: str) -> Any:
    """PEFT's configuration class of a type, in any case. Raises Refused where the installed PEFT has none."""
    classes: Any = import_module("peft.mapping").PEFT_TYPE_TO_CONFIG_MAPPING
    name = peft_type.upper()
    if name not in classes:
        known = sorted(str(getattr(kind, "value", kind)) for kind in classes)
        raise Refused(
            f"the installed PEFT has no type {name or '(none)'}.",
            f"{did_you_mean(name, known)} It has {', '.join(known)}.".strip(),
        )
    return classes[name]


def peft_config(options: Mapping[str, Any], trained: bool, task: str | None = TASK) -> Any:
    """PEFT's configuration of an adapter for a model of this task; `options` are its fields with the peft_type.

    Raises Refused where PEFT will not have them.
    """
    fields = {key: value for key, value in options.items() if key != "peft_type"}
    kind = config_class(options["peft_type"])
    try:
        return kind(**{**fields, "task_type": task, "inference_mode": not trained})
    except ImportError as error:
        name = options["peft_type"].lower()
        raise Refused(f"PEFT has no {name} here: {in_a_line(error)}", "Or choose another type.") from error
    except Exception as error:  # a configuration checks itself in any way
        raise Refused(f"PEFT refuses the adapter: {in_a_line(error)}", "Correct its options.") from error


def add_adapter(model: Any, adapter: AdapterSpec, trained: bool) -> Any:
    """The model in PEFT's wrapper, with a new adapter in the dtype that its spec asks for. Raises Refused."""
    from peft import get_peft_model

    config, before = peft_config(adapter_options(adapter), trained), parameter_ids(model)
    leave_out(model, config)
    adapted = get_peft_model(model, config, autocast_adapter_dtype=adapter.dtype is DType.FLOAT32)
    cast_adapter(adapted, before, adapter.dtype)
    return adapted


def leave_out(model: Any, config: Any) -> tuple[str, ...]:
    """Exclude from all-linear what PEFT counts among linear layers and cannot adapt; return their names, sorted.

    A training that asks for all of them stops there, so these are what a user has to leave out.
    """
    kept = getattr(config, "exclude_modules", None)
    if getattr(config, "target_modules", None) != ALL_LINEAR or not (kept is None or isinstance(kept, (list, set))):
        return ()
    refused = {
        name.rpartition(".")[2] for name, module in model.named_modules() if _refused(name, module, model, config)
    }
    if refused:
        config.exclude_modules = {*(kept or ()), *refused}
    return tuple(sorted(refused))


def _refused(name: str, module: Any, model: Any, config: Any) -> bool:
    from peft.tuners.tuners_utils import BaseTuner
    from torch.nn import Linear

    if not isinstance(module, Linear):
        return False
    if name.rpartition(".")[2] in HEADS.get(str(config.task_type), ()):
        return True
    check: Any = BaseTuner._check_target_module_compatiblity
    try:
        check(None, config, model, name.rpartition(".")[2])
    except ValueError:  # out_proj of state-space layers, whose weight their kernel takes past any adapter
        return True
    return not _is_product(module)


def _is_product(module: Any) -> bool:
    """Whether a module of a class made from the linear layer still turns rows of in_features into out_features.

    A router that returns a tuple does not, nor does a layer of groups: PEFT adds to what comes out.
    """
    import torch

    if not type(module).__module__.startswith("transformers.models."):
        return True
    weights = {name: torch.empty_like(tensor, device="meta") for name, tensor in module.named_parameters()}
    rows = torch.empty((1, 2, module.in_features), device="meta", dtype=module.weight.dtype)
    try:
        out = torch.func.functional_call(module, weights, (rows,))
    except Exception:  # it takes other inputs than rows
        return False
    return isinstance(out, torch.Tensor) and out.shape == (1, 2, module.out_features)


def parameter_ids(model: Any) -> set[int]:
    """What tells the parameters that are there before an adapter from its own."""
    return {id(parameter) for parameter in model.parameters()}


def cast_adapter(model: Any, before: set[int], dtype: DType) -> None:
    """Cast all parameters but those in `before` to the dtype: on a quantized base PEFT makes them in float32 anyway."""
    from peftbench.libraries.model import torch_dtype

    if dtype is not DType.FLOAT32:
        for parameter in model.parameters():
            if id(parameter) not in before and parameter.is_floating_point():
                parameter.data = parameter.data.to(torch_dtype(dtype))
