"""Read the adapter_config.json that PEFT's save_pretrained writes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

from peftbench.base.errors import CatalogError
from peftbench.catalog.config_file import read_json_object

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
