"""Read a config.json from disk, whatever is found there, with one clear message when it cannot be used."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

from peftbench.base.documents import Twice, parse_json
from peftbench.base.errors import CatalogError

MOST_BYTES = 10_000_000
"""Real files have a few kilobytes; weights saved as .json or a wrong path should not fill the memory."""

_HINT = "Pass a config.json, or the folder of a model that has one."


def read_config_file(path: str) -> tuple[Mapping[str, object], str]:
    """Return the parsed config and the path of the file itself; `path` may be the folder that holds it.

    Raises CatalogError when there is no such file, or when it is not a readable JSON object.
    """
    if os.path.isdir(path):
        path = _inside(path)
    return read_json_file(path), path


def read_json_file(path: str, hint: str = _HINT) -> Mapping[str, object]:
    """The JSON object in a file; `hint` says what to pass instead. Raises CatalogError."""
    return _parse(_read(path, hint), path, hint)


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


def _read(path: str, hint: str) -> bytes:
    try:
        size = os.path.getsize(path)
        if not os.path.isfile(path):
            raise CatalogError(f"{path} is not a regular file.", hint)
        if size > MOST_BYTES:
            raise CatalogError(f"{path} has {size:,} bytes, far too many for a config.json.", hint)
        with open(path, "rb") as file:
            return file.read()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise CatalogError(f"cannot read {path}: {why}.", hint) from error


def _parse(content: bytes, path: str, hint: str) -> Mapping[str, object]:
    try:
        config = parse_json(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise CatalogError(f"{path} is not text in UTF-8.", hint) from error
    except Twice as error:
        raise CatalogError(f"{path}: {error}.", "Leave one out.") from error
    except json.JSONDecodeError as error:
        raise CatalogError(
            f"{path} is not valid JSON: {error}.", "The file may be cut short: download it again."
        ) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, or brackets in brackets
        raise CatalogError(f"{path} is no config.json of a model: its JSON is out of bounds.", hint) from error
    if not isinstance(config, dict):
        raise CatalogError(f"{path} holds a JSON {type(config).__name__}, not an object.", hint)
    return config
