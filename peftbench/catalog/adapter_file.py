"""Read the adapter_config.json that PEFT's save_pretrained writes, and the AdapterSpec that it amounts to."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

from peftbench.base.errors import CatalogError, NoFormula, SpecError
from peftbench.catalog.config_file import read_json_object
from peftbench.inputs.recipe import ALL_LINEAR, AdapterSpec
from peftbench.inputs.recipe.adapter import NAMED_AS_PEFT

_NO_FORMULA = (
    "rank_pattern", "layers_to_transform", "layer_replication", "exclude_modules", "target_parameters",
    "modules_to_save", "layers_pattern", "megatron_config", "trainable_token_indices",
)  # fmt: skip
"""Options that change which tensors there are, in ways that only PEFT itself works out."""
_HINT = "Pass the adapter_config.json that save_pretrained wrote, or its folder."


def read_adapter_file(path: str) -> Mapping[str, object]:
    """The parsed file; `path` may be its folder. Raises CatalogError where it cannot be read or names no type."""
    if os.path.isdir(path):
        path = os.path.join(path, "adapter_config.json")
    config = read_json_object(path, _HINT)
    if not isinstance(config.get("peft_type"), str):
        raise CatalogError(f"{path} has no peft_type.", _HINT)
    return config


def adapter_text(config: Mapping[str, object]) -> str:
    """The file as text with sorted keys: equal adapters are equal texts."""
    return json.dumps(config, sort_keys=True)


def adapter_of(config: Mapping[str, object], known_options: Mapping[str, object]) -> AdapterSpec:
    """The spec of this adapter; `known_options` are those that decide the size of its type.

    Raises NoFormula where the file says what only PEFT itself can work out, SpecError where it makes no sense.
    """
    peft_type = str(config["peft_type"]).lower()
    for name in _NO_FORMULA:
        if config.get(name):
            raise NoFormula(f"{name} of an adapter_config.json has no formula.", "Use --dry-run.")
    if config.get("bias", "none") != "none":
        raise NoFormula("trained biases of an adapter_config.json have no formula.", "Use --dry-run.")
    rank = config.get("init_r" if peft_type == "adalora" else "r")
    own = ("r", "init_r", *(option.name for option in NAMED_AS_PEFT))
    options = {
        name: config[name] for name in known_options
        if name in config and name not in own and isinstance(config[name], (bool, int, float, str))
    }  # fmt: skip
    return AdapterSpec(
        peft_type=peft_type,
        r=rank if isinstance(rank, int) and rank and peft_type != "oft" else None,
        target_modules=_targets(config.get("target_modules")),
        options=tuple(sorted(options.items())),  # type: ignore[arg-type]
        **{option.field: option.parse(config[option.name]) for option in NAMED_AS_PEFT if config.get(option.name)},
    )


def _targets(value: object) -> tuple[str, ...] | None:
    """Names, "all-linear" or none; a regular expression is for PEFT to match."""
    if value is None:
        return None
    if isinstance(value, str):
        if value != ALL_LINEAR:
            raise NoFormula("target_modules that are a regular expression have no formula.", "Use --dry-run.")
        return (ALL_LINEAR,)
    if not isinstance(value, (list, tuple)) or not all(isinstance(name, str) for name in value):
        raise SpecError(f"target_modules cannot be {value!r}.", "PEFT writes a list of names.")
    return tuple(sorted(value))
