"""YAML and JSON that people write: plain values only, and no key twice, because the later would win in silence."""

from __future__ import annotations

import json
import os
from collections import Counter
from functools import lru_cache
from typing import Any

from peftbench.base.codec import from_json
from peftbench.base.errors import CatalogError, install_hint, located
from peftbench.base.files import MOST_BYTES, read_text
from peftbench.base.plain import Lined
from peftbench.base.visible import written

MOST_YAML_BYTES = 1_000_000
"""A suite of thousands of cases is smaller, and PyYAML reads about so much in a second."""


class Twice(ValueError):
    """A mapping has one key twice."""

    def __init__(self, key: object, line: int | None = None) -> None:
        super().__init__(f"the key {written(key)} comes twice")
        self.line = line


def read_json(path: str | os.PathLike[str], hint: str, kind: Any = Any, most_bytes: int = MOST_BYTES) -> Any:
    """The value that a JSON file holds, of a kind that codec.from_json knows; `hint` says what to pass instead.

    Raises CatalogError.
    """
    return parse_json(read_text(path, hint, most_bytes), os.fspath(path), hint, kind)


def read_yaml(path: str | os.PathLike[str], hint: str, kind: Any = Any) -> Any:
    """The value of a file's one YAML document; its mappings know the lines of their keys. Raises CatalogError."""
    return parse_yaml(read_text(path, hint, MOST_YAML_BYTES), os.fspath(path), hint, kind)


def parse_json(text: str, place: str, hint: str, kind: Any = Any) -> Any:
    """The value of a JSON text. Raises CatalogError that names the place, and the line where JSON ends."""
    try:
        value = json_value(text)
    except Twice as error:
        raise CatalogError(f"{place}: {error}.", "Leave one out.") from None
    except json.JSONDecodeError as error:
        why = error.msg.removesuffix(" starting at")
        what = f"{place}, line {error.lineno}, column {error.colno}: this is not JSON: {why}."
        cut = text and (error.pos >= len(text.rstrip()) or "Unterminated" in why)
        raise CatalogError(what, "The file is cut short: get it again." if cut else hint) from None
    except (ValueError, RecursionError) as error:
        raise CatalogError(f"{place}: {_out_of_bounds(error)}.", hint) from None
    return _checked(kind, value, place)


def json_value(text: str) -> Any:
    """The value of a line of JSON, before its content is checked. Raises Twice, ValueError and RecursionError."""
    return json.loads(text, object_pairs_hook=_once)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Twice(Counter(key for key, _ in pairs).most_common(1)[0][0])
    return found


def _out_of_bounds(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    return "it has a number of thousands of digits" if "digits" in str(error) else str(error)


def _checked(kind: Any, value: object, place: str) -> Any:
    with located(place, CatalogError, "Correct it there."):
        return from_json(kind, value, "")


def parse_yaml(text: str, place: str, hint: str, kind: Any = Any) -> Any:
    """The value of the one YAML document of `place`; its mappings are Lined. Raises CatalogError with its line
    and this hint where it cannot be read."""
    try:
        import yaml
    except ImportError:
        raise CatalogError("reading YAML needs PyYAML.", install_hint("PyYAML")) from None
    try:
        value = yaml.load(text, _loader())
    except Twice as error:
        raise CatalogError(f"{place}, line {error.line}: {error}.", "Leave one out.") from None
    except Exception as error:  # PyYAML's constructors raise whatever they stumble over: KeyError, IndexError, …
        mark = getattr(error, "problem_mark", None)
        where = f"{place}, line {mark.line + 1}" if mark else place
        raise CatalogError(f"{where}: this is not YAML of one document: {_why(error)}.", hint) from None
    return _checked(kind, value, place)


def _why(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deep"
    return " ".join(str(getattr(error, "problem", None) or type(error).__name__).split())[:80]


@lru_cache(maxsize=1)
def _loader() -> Any:
    """PyYAML's safe loader, in C where there is one: deep nesting takes the other seconds before it gives up."""
    import yaml

    safe: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Strict(safe):  # type: ignore[misc]
        """Looks at every mapping before merge keys (<<) add to it what its own keys may override.

        Afterwards one value of a key is left: some versions of PyYAML merge the overridden one into the next mapping.
        """

        def flatten_mapping(self, node: Any) -> None:
            seen = self.__dict__.setdefault("seen", set())
            if id(node) not in seen:
                seen.add(id(node))
                _check_once(node)
            super().flatten_mapping(node)
            node.value = list({(key.tag, str(key.value)): (key, value) for key, value in node.value}.values())

        def construct_object(self, node: Any, deep: bool = False) -> Any:
            """Every error has a line."""
            try:
                return super().construct_object(node, deep)
            except (yaml.YAMLError, RecursionError, Twice):
                raise
            except Exception as error:
                what = f"{written(getattr(node, 'value', ''))} is no {node.tag.rpartition(':')[2]}"
                raise yaml.constructor.ConstructorError(None, None, what, node.start_mark) from error

        def construct_lined(self, node: Any) -> Any:
            lines = {key.value: key.start_mark.line + 1 for key, _ in node.value if isinstance(key.value, str)}
            found = Lined({}, lines)
            yield found
            found.update(self.construct_mapping(node))

    Strict.add_constructor("tag:yaml.org,2002:map", Strict.construct_lined)
    return Strict


def _check_once(node: Any) -> None:
    known = set()
    for key, _ in node.value:
        written = (key.tag, str(key.value))
        if written in known and not key.tag.endswith(":merge"):
            raise Twice(key.value, key.start_mark.line + 1)
        known.add(written)
