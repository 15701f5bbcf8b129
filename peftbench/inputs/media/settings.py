"""The values that a processor works with: of preprocessor_config.json, else as config.json implies, else its class's.

Keys are those of preprocessor_config.json and processor_config.json; {"size": {"height": 336}} is "size.height".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from peftbench.base.errors import SpecError
from peftbench.base.visible import written

Settings = Mapping[str, Any]

_OLDER = {"min_pixels": "size.shortest_edge", "max_pixels": "size.longest_edge"}
"""What processors of transformers 4 called them."""
_MOST = 1 << 40


def settings(
    defaults: Settings, implied: Mapping[str, str], config: Mapping[str, object], processor: Mapping[str, object]
) -> dict[str, Any]:
    """A value for each key of `defaults`; `implied` names the place in config.json that says the same.

    Raises SpecError for a value of another kind than the default's.
    """
    of_config = {key: _at(config, path) for key, path in implied.items()}
    found = {**of_config, **dict(_flat(processor))}
    return {key: default if found.get(key) is None else _like(key, found[key], default)
            for key, default in defaults.items()}  # fmt: skip


def _flat(processor: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """What it writes, sizes as one number a key; a size that is one number is all of its sides."""
    for name, value in processor.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{side}", each) for side, each in value.items() if each is not None)
        elif value is not None:
            yield _OLDER.get(name, name), value
            if isinstance(value, int):
                yield from ((f"{name}.{side}", value) for side in ("height", "width", "shortest_edge", "longest_edge"))


def _at(config: Mapping[str, object], path: str) -> object:
    """The value at "vision_config.image_size"; of a height and a width the first; None where there is none."""
    value: object = config
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    pair = isinstance(value, (list, tuple)) and len(value) == 2 and isinstance(value[0], int)
    return value[0] if pair else value  # type: ignore[index]


def _like(key: str, value: object, default: object) -> object:
    """The value, which must be of the default's kind."""
    if isinstance(default, (bool, str)):
        fits = type(value) is type(default)
    elif isinstance(default, tuple):
        fits = isinstance(value, (list, tuple)) and bool(value) and all(map(_is_size, value))
    else:
        fits = _is_number(value) and (isinstance(default, float) or isinstance(value, int))
    if not fits:
        raise SpecError(
            f"the image processor's {key} cannot be {written(value)}.",
            f"Correct it in preprocessor_config.json or config.json: {default!r} would be usual.",
        )
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= _MOST


def _is_size(value: object) -> bool:
    pair = isinstance(value, (list, tuple)) and len(value) == 2
    return pair and all(type(side) is int and 0 < side <= _MOST for side in value)  # type: ignore[attr-defined]
