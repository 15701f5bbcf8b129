"""Read a config.json from disk, whatever is found there, with one clear message when it cannot be used."""

from __future__ import annotations

import os
from collections.abc import Mapping

from peftbench.base.documents import read_json
from peftbench.base.errors import CatalogError

_HINT = "Pass a config.json, or the folder of a model that has one."


def read_config_file(path: str) -> tuple[Mapping[str, object], str]:
    """Return the parsed config and the path of the file itself; `path` may be the folder that holds it.

    Raises CatalogError when there is no such file, or when it is not a readable JSON object.
    """
    if os.path.isdir(path):
        path = _inside(path)
    return read_json_object(path), path


def read_json_object(path: str, hint: str = _HINT) -> Mapping[str, object]:
    """The JSON object in a file, infinities included; `hint` says what to pass instead. Raises CatalogError."""
    found = read_json(path, hint, object)
    if not isinstance(found, Mapping):
        raise CatalogError(f"{path} holds a JSON {type(found).__name__}, not an object.", hint)
    return found


def _inside(folder: str) -> str:
    path = os.path.join(folder, "config.json")
    if os.path.exists(path):
        return path
    if os.path.exists(os.path.join(folder, "adapter_config.json")):
        raise CatalogError(
            f"{folder} holds a PEFT adapter, not a model.",
            "Pass the base model that its adapter_config.json names as base_model_name_or_path.",
        )
    raise CatalogError(f"{folder} has no config.json.", _HINT)
