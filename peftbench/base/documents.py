"""YAML and JSON that people write: plain values only, and no key twice, because the later would win in silence."""

from __future__ import annotations

import json
from collections import Counter
from functools import lru_cache
from typing import Any

from peftbench.base.errors import CatalogError, install_hint


class Twice(ValueError):
    """A mapping has one key twice."""

    def __init__(self, key: str, line: int | None = None) -> None:
        super().__init__(f"the key {key!r} comes twice")
        self.line = line


def parse_json(text: str) -> Any:
    """The JSON value. Raises Twice, and ValueError and RecursionError as json.loads does."""
    return json.loads(text, object_pairs_hook=_once)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Twice(Counter(key for key, _ in pairs).most_common(1)[0][0])
    return found


def parse_yaml(text: str | bytes, place: str, hint: str) -> Any:
    """The one YAML document of `place`. Raises CatalogError with its line and this hint where it cannot be read."""
    try:
        import yaml
    except ImportError:
        raise CatalogError("reading YAML needs PyYAML.", install_hint("PyYAML")) from None
    try:
        return yaml.load(text, _loader())
    except Twice as error:
        raise CatalogError(f"{place}, line {error.line}: {error}.", "Leave one out.") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        why = " ".join(str(getattr(error, "problem", None) or "nested too deep").split())[:80]
        raise CatalogError(f"{place}{where}: this is not YAML of one document: {why}.", hint) from None


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

    return Strict


def _check_once(node: Any) -> None:
    known = set()
    for key, _ in node.value:
        written = (key.tag, str(key.value))
        if written in known and not key.tag.endswith(":merge"):
            raise Twice(key.value, key.start_mark.line + 1)
        known.add(written)
