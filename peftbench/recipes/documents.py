"""Other tools' files on disk: read from JSON, YAML or a script's own constants, and written as YAML."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping

from peftbench.base.documents import read_yaml
from peftbench.base.errors import CatalogError
from peftbench.base.files import read_text
from peftbench.base.visible import visible
from peftbench.catalog.config_file import read_json_object

HINT = "Pass an axolotl, LLaMA-Factory, TRL, accelerate or DeepSpeed file, training_args.json, or a script of `recipe`."
MOST_SCRIPT_BYTES = 1_000_000


def read_document(path: str) -> Mapping[str, object]:
    """The mapping that the file holds. Raises CatalogError for whatever is not one."""
    if path.endswith(".json"):
        return read_json_object(path, HINT)
    value = _constants(path) if path.endswith(".py") else read_yaml(path, HINT, object)
    if not isinstance(value, Mapping) or not value or not all(isinstance(key, str) for key in value):
        kind = "nothing" if value is None or value == {} else f"a {type(value).__name__}"
        raise CatalogError(f"{path} holds {kind}, not a mapping of settings to values.", HINT)
    return value


def _constants(path: str) -> dict[str, object]:
    """Upper-case names that a script gives plain values; nothing of the script is run."""
    try:
        tree = ast.parse(read_text(path, HINT, MOST_SCRIPT_BYTES))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise CatalogError(f"{path} is not a Python script.", HINT) from error
    found: dict[str, object] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            if name.isupper():
                found[name] = _literal(node.value, f"{path}, line {node.lineno}")
    return found


def _literal(node: ast.expr, where: str) -> object:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, RecursionError) as error:
        raise CatalogError(f"{where}: this constant is computed, so it cannot be read.", HINT) from error


def yaml_of(values: Mapping[str, object]) -> str:
    """The mapping as YAML: names in their order, mappings below each other, everything else as JSON has it."""
    return "\n".join(_lines(values, "")) + "\n"


def _lines(values: Mapping[str, object], indent: str) -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield f"{indent}{name}:"
            yield from _lines(value, f"{indent}  ")
        else:
            yield f"{indent}{name}: {_scalar(value)}"


def _scalar(value: object) -> str:
    """YAML 1.1, which PyYAML reads, knows a number with an exponent only by its point: 1.0e-05."""
    text = visible(json.dumps(value, ensure_ascii=False))  # YAML has Python's other escapes
    if isinstance(value, float) and "e" in text and "." not in text:
        return text.replace("e", ".0e")
    return text
