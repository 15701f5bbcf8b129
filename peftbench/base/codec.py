"""Plain JSON values to dataclasses by their annotations: exact types, and every complaint names its place."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from peftbench.base.errors import SpecError, did_you_mean

_WANTED = {int: "a whole number", float: "a finite number", str: "text", bool: "true or false"}


def from_json(kind: Any, value: object, where: str) -> Any:
    """`value` as the annotation `kind` wants it: an object becomes a dataclass, a list a tuple, a name an Enum.

    True is no int, though Python says so, and a whole number is a float. A field that is left out has its default; what
    is already of the wanted dataclass is kept. Raises SpecError that begins with `where`: "training.adapter.r".
    """
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        return _alternative(kind, value, where)
    if origin is tuple:
        return _tuple(get_args(kind), value, where)
    if origin in (Mapping, dict):
        _, inner = get_args(kind)
        return {name: from_json(inner, each, f"{where}.{name}") for name, each in _object(value, where).items()}
    if is_dataclass(kind):
        return value if isinstance(value, kind) else _build(kind, _object(value, where), where)  # type: ignore[arg-type]
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _member(kind, value, where)
    return _plain(kind, value, where)


@lru_cache(maxsize=256)
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _build(kind: Any, given: Mapping[str, object], where: str) -> Any:
    known = {field.name: field for field in fields(kind)}
    for name in given:
        if name not in known:
            raise SpecError(f"{where} has no field {name!r}.", did_you_mean(str(name), known))
    for name, field in known.items():
        if name not in given and field.default is MISSING and field.default_factory is MISSING:
            raise SpecError(f"{where} lacks the field {name!r}.")
    hints = _hints(kind)
    return kind(**{name: from_json(hints[name], value, f"{where}.{name}") for name, value in given.items()})


def _object(value: object, where: str) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise SpecError(f"{where} must be an object, not {value!r}.")
    return value


def _alternative(kind: Any, value: object, where: str) -> Any:
    """The value as the one alternative there is beside None, or as the first that takes it."""
    kinds = get_args(kind)
    if value is None and NoneType in kinds:
        return None
    *first, last = (each for each in kinds if each is not NoneType)
    for each in first:
        try:
            return from_json(each, value, where)
        except SpecError:
            continue
    return from_json(last, value, where)


def _tuple(kinds: tuple[Any, ...], value: object, where: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise SpecError(f"{where} must be a list, not {value!r}.")
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(kinds) != len(value):
        raise SpecError(f"{where} must have {len(kinds)} values, not {len(value)}.")
    pairs = zip(kinds, value, strict=True)
    return tuple(from_json(kind, each, f"{where}[{place}]") for place, (kind, each) in enumerate(pairs))


def _member(kind: type[Enum], value: object, where: str) -> Enum:
    try:
        return kind(value)
    except ValueError:
        known = ", ".join(str(member.value) for member in kind)
        raise SpecError(f"{where} must be one of {known}, not {value!r}.") from None


def _plain(kind: Any, value: object, where: str) -> Any:
    """A number, text or truth value of exactly this type; Any takes whatever JSON has."""
    wanted = (int, float) if kind is float else (kind,)
    if kind is Any or (type(value) in wanted and not (isinstance(value, float) and not math.isfinite(value))):
        return value
    raise SpecError(f"{where} must be {_WANTED[kind]}, not {value!r}.")
