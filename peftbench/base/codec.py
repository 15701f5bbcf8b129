"""Plain JSON values to dataclasses by their annotations: exact types, and every complaint names its place."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import lru_cache
from math import isfinite
from operator import is_
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from peftbench.base.errors import SpecError, did_you_mean
from peftbench.base.plain import (
    MOST,
    WANTED,
    Lined,
    Reader,
    Wrong,
    line_of,
    read_flag,
    read_key,
    read_loose,
    read_number,
    read_plain,
    read_text,
    read_whole,
)
from peftbench.base.visible import written


class Within(NamedTuple):
    """The range of a number, ends included, in an annotation: Annotated[int, Within(1)]."""

    least: float
    most: float = MOST


Count = Annotated[int, Within(0)]
"""A number of things, or of bytes: not negative."""
Seconds = Annotated[float, Within(0, 1e10)]
"""A time that passed: up to three centuries."""
Share = Annotated[float, Within(0, 1)]
"""A part of a whole."""


def from_json(kind: Any, value: object, where: str) -> Any:
    """`value` as the annotation `kind` wants it: an object becomes a dataclass, a list a tuple, a name an Enum.

    True is no int, though Python says so, and a whole number is a float. A number is finite, and within the range that
    is declared: Annotated[int, Within(1, 8)]. A field that is left out has its default; what is already of the wanted
    dataclass is kept. Any stands for plain values, as deep and as many as a document has; object for those with NaN and
    infinity too, which transformers writes. Raises SpecError that begins with `where`: "training.adapter.r".
    """
    try:
        return _reader(kind)(value)
    except Wrong as wrong:
        raise wrong.error(where) from None


def check_fields(spec: Any) -> None:
    """Hold the fields of a dataclass to their annotations; a list becomes a tuple.

    For __post_init__: whoever makes one by hand may give anything. Raises SpecError.
    """
    kind: Any = type(spec)
    for name, read in _readers(kind).items():
        given = getattr(spec, name)
        try:
            found = read(given)
        except Wrong as wrong:
            raise wrong.error(name) from None
        if found is not given:
            object.__setattr__(spec, name, found)


@lru_cache(maxsize=64)
def _readers(spec: Any) -> dict[str, Reader]:
    """The reader of every field of a dataclass: made once, since records have thousands of values."""
    hints = get_type_hints(spec, include_extras=True)
    return {field.name: _reader(hints[field.name]) for field in fields(spec)}


@lru_cache(maxsize=512)
def _reader(kind: Any) -> Reader:
    origin = get_origin(kind)
    if origin in _OF_ORIGIN:
        return _OF_ORIGIN[origin](*get_args(kind))
    if is_dataclass(kind):
        return _dataclass(kind)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _one_of({member.value: member for member in kind})
    return _PLAIN.get(kind) or _instance(kind)


# ── objects and lists ───────────────────────────────────────────────────────────────────────────────────────────────


def _dataclass(kind: Any) -> Reader:
    known = [field.name for field in fields(kind)]
    needed = [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]

    def read(value: Any) -> Any:
        if isinstance(value, kind):
            return value
        readers, found = _readers(kind), {}
        for name, each in _object(value).items():
            if name not in readers:
                raise _unknown(name, known, line_of(value, str(name)))
            try:
                found[name] = readers[name](each)
            except Wrong as wrong:
                raise wrong.within(f".{name}", value) from None
        for name in needed:
            if name not in found:
                raise Wrong(f"lacks the field {name!r}.")
        return kind(**found)

    return read


def _unknown(name: object, known: list[str], line: int) -> Wrong:
    near = did_you_mean(str(name)[:60], known)
    unknown = Wrong(f"has no field {written(name)}.", near or f"It may have {', '.join(known)}.")
    unknown.line = line
    return unknown


def _object(value: object) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise Wrong(f"must be an object, not {written(value)}.")
    return value


def _mapping(_: Any, inner: Any) -> Reader:
    read = _reader(inner)

    def read_all(value: Any) -> Any:
        found = {}
        for name, each in _object(value).items():
            try:
                found[read_key(name)] = read(each)
            except Wrong as wrong:
                raise wrong.within(f".{name}", value) from None
        return Lined(found, value.lines) if isinstance(value, Lined) else found

    return read_all


def _instance(kind: Any) -> Reader:
    """What is no JSON and can only be kept."""

    def read(value: Any) -> Any:
        if not isinstance(value, kind):
            raise Wrong(f"must be of class {kind.__name__}, not {written(value)}.")
        return value

    return read


def _tuple(*kinds: Any) -> Reader:
    endless = len(kinds) == 2 and kinds[1] is Ellipsis
    readers = [_reader(kind) for kind in (kinds[:1] if endless else kinds)]
    numbers = _numbers(kinds[0]) if endless else None

    def read(value: Any) -> Any:
        if not isinstance(value, (list, tuple)):
            raise Wrong(f"must be a list, not {written(value)}.")
        if numbers and _all_within(value, *numbers):
            return tuple(value)
        if not endless and len(value) != len(readers):
            raise Wrong(f"must have {len(readers)} values, not {len(value)}.")
        found: list[Any] = []
        try:
            for each in value:
                found.append(readers[0 if endless else len(found)](each))
        except Wrong as wrong:
            raise wrong.within(f"[{len(found)}]") from None
        return value if type(value) is tuple and all(map(is_, found, value)) else tuple(found)

    return read


def _numbers(kind: Any) -> tuple[frozenset[type], Within] | None:
    """The types and the range of a number, which may be optional; None for anything else."""
    kinds = set(get_args(kind)) if get_origin(kind) in (Union, UnionType) else {kind}
    (bare,) = kinds - {NoneType} if len(kinds - {NoneType}) == 1 else (None,)
    bare, within = get_args(bare) if get_origin(bare) is Annotated else (bare, Within(-MOST))
    if bare not in (int, float):
        return None
    return frozenset({int, bare} | kinds & {NoneType}), within


def _all_within(values: Collection[Any], types: frozenset[type], within: Within) -> bool:
    """Whether all are such numbers, found out at once: a record has hundreds, and nearly all are right.

    False may be wrong: whoever reads them one by one finds out, and what to say.
    """
    found = set(map(type, values))
    known = [value for value in values if value is not None] if NoneType in found else values
    if not found <= types or not known:
        return False
    return within.least <= min(known) and max(known) <= within.most and isfinite(sum(known))


# ── one of several ──────────────────────────────────────────────────────────────────────────────────────────────────


def _union(*kinds: Any) -> Reader:
    """The value as the first kind that takes it; where none does, the complaint is that of the kind it looks like."""
    readers = {each: _reader(each) for each in kinds if each is not NoneType}
    optional = NoneType in kinds
    if len(readers) == 1:
        (read_it,) = readers.values()
        return lambda value: None if value is None else read_it(value)

    def read(value: Any) -> Any:
        if value is None and optional:
            return None
        held = [each for each in readers if _looks_like(each, value)] or list(readers)
        for each in held[:-1]:
            try:
                return readers[each](value)
            except (Wrong, SpecError):
                continue
        if len(readers) > 1 and not _looks_like(held[-1], value):
            wanted = list(dict.fromkeys(map(_in_words, sorted(readers, key=_is_list))))
            raise Wrong(f"must be {', '.join(wanted[:-1])} or {wanted[-1]}, not {written(value)}.")
        return readers[held[-1]](value)

    return read


def _looks_like(kind: Any, value: object) -> bool:
    """Whether the value has the shape, be its content as it may."""
    if isinstance(value, (list, tuple)):
        return _in_words(kind) == "a list"
    if isinstance(value, Mapping) or is_dataclass(value):
        return _in_words(kind) == "an object"
    return _in_words(kind) not in ("an object", "a list") and (not isinstance(kind, type) or isinstance(value, kind))


def _is_list(kind: Any) -> bool:
    return get_origin(kind) is tuple


def _in_words(kind: Any) -> str:
    origin = get_origin(kind)
    if origin is Annotated:
        return _in_words(get_args(kind)[0])
    if origin is tuple:
        return "a list"
    return WANTED.get(kind, "one of some words" if origin is Literal else "an object")


def _literal(*words: Any) -> Reader:
    return _one_of({word: word for word in words})


def _one_of(members: Mapping[str, Any]) -> Reader:
    known = ", ".join(map(str, members))

    def read(value: Any) -> Any:
        if isinstance(value, str) and value in members:
            return members[value]
        near = did_you_mean(value[:60], members) if isinstance(value, str) else ""
        raise Wrong(f"must be one of {known}, not {written(value)}.", near)

    return read


def _ranged(kind: Any, within: Within) -> Reader:
    read = _reader(kind)
    least, most = within

    def read_within(value: Any) -> Any:
        found = read(value)
        if not least <= found <= most:
            wanted = f"be at least {least:,}" if found < least else f"be at most {most:,}"
            wanted = "not be negative" if found < least == 0 else wanted
            raise Wrong(f"must {wanted} (got {written(found)}).")
        return found

    return read_within


_PLAIN: Mapping[Any, Reader] = {
    int: read_whole,
    float: read_number,
    str: read_text,
    bool: read_flag,
    Any: read_plain,
    object: read_loose,
}
_OF_ORIGIN: Mapping[Any, Callable[..., Reader]] = {
    Annotated: _ranged, Union: _union, UnionType: _union, tuple: _tuple, Mapping: _mapping, dict: _mapping,
    Literal: _literal,
}  # fmt: skip
