"""Plain JSON values to dataclasses by their annotations: exact types, and every complaint names its place."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import lru_cache
from operator import is_
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from peftbench.base.errors import SpecError, did_you_mean
from peftbench.base.written import written

Reader = Callable[[Any], Any]

MOST = 10**18
"""The largest whole number that is one: bytes and tokens are far below."""
DEEPEST = 100
"""Lists in lists and objects in objects; real files have ten."""
MOST_VALUES = 300_000
"""Values of one plain document, where an alias of YAML counts as often as it is used."""

_WANTED = {int: "a whole number", float: "a finite number", str: "text", bool: "true or false"}


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


class Lined(dict[str, Any]):
    """A mapping of a file whose parser knows the line of each key."""

    def __init__(self, values: Mapping[str, Any], lines: Mapping[str, int]) -> None:
        super().__init__(values)
        self.lines = lines


class _Wrong(Exception):
    """A value that cannot be; who holds it puts its place before it, and its line where that is known."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.what, self.hint = what, hint
        self.place, self.line = "", 0
        self.of_all = False
        """Whether it is about the whole document, wherever it was noticed."""

    def within(self, place: str, holder: object = None) -> _Wrong:
        """The same, of a value at this place."""
        if self.of_all:
            return self
        self.place = place + self.place
        if not self.line and isinstance(holder, Lined):
            self.line = holder.lines.get(place[1:], 0)
        return self

    def error(self, where: str) -> SpecError:
        """As users see it: "case.recipe.r (line 3) must be a whole number, not '64'."."""
        place = f"{where}{self.place}".lstrip(".")
        place = place if len(place) <= 120 else f"{place[:80]} … {place[-30:]}"
        line = f" (line {self.line})" if self.line else ""
        return SpecError(f"{place or 'it'}{line} {self.what}", self.hint)


def from_json(kind: Any, value: object, where: str) -> Any:
    """`value` as the annotation `kind` wants it: an object becomes a dataclass, a list a tuple, a name an Enum.

    True is no int, though Python says so, and a whole number is a float. A number is finite, and within the range that
    is declared: Annotated[int, Within(1, 8)]. A field that is left out has its default; what is already of the wanted
    dataclass is kept. Any stands for plain values, as deep and as many as a document has; object for those with NaN and
    infinity too, which transformers writes. Raises SpecError that begins with `where`: "training.adapter.r".
    """
    try:
        return _reader(kind)(value)
    except _Wrong as wrong:
        raise wrong.error(where) from None


def check_fields(spec: Any, *names: str) -> None:
    """Hold the fields of a dataclass, all of them or those named, to their annotations; a list becomes a tuple.

    For __post_init__: whoever makes one by hand may give anything. Raises SpecError.
    """
    kind: Any = type(spec)
    readers = _readers(kind)
    for name in names or readers:
        given = getattr(spec, name)
        try:
            found = readers[name](given)
        except _Wrong as wrong:
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
    return _PLAIN[kind]


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
                raise _unknown(name, known).within("", value)
            try:
                found[name] = readers[name](each)
            except _Wrong as wrong:
                raise wrong.within(f".{name}", value) from None
        for name in needed:
            if name not in found:
                raise _Wrong(f"lacks the field {name!r}.")
        return kind(**found)

    return read


def _unknown(name: object, known: list[str]) -> _Wrong:
    near = did_you_mean(str(name)[:60], known)
    return _Wrong(f"has no field {written(name)}.", near or f"It may have {', '.join(known)}.")


def _object(value: object) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise _Wrong(f"must be an object, not {written(value)}.")
    return value


def _mapping(_: Any, inner: Any) -> Reader:
    read = _reader(inner)

    def read_all(value: Any) -> Any:
        found = {}
        for name, each in _object(value).items():
            try:
                found[_key(name)] = read(each)
            except _Wrong as wrong:
                raise wrong.within(f".{name}", value) from None
        return found

    return read_all


def _key(name: Any) -> str:
    if type(name) is not str:
        raise _Wrong(f"is no name: names are text, not {written(name)}.", "Put it in quotation marks.")
    return _text(name)


def _tuple(*kinds: Any) -> Reader:
    endless = len(kinds) == 2 and kinds[1] is Ellipsis
    readers = [_reader(kind) for kind in (kinds[:1] if endless else kinds)]

    def read(value: Any) -> Any:
        if not isinstance(value, (list, tuple)):
            raise _Wrong(f"must be a list, not {written(value)}.")
        if not endless and len(value) != len(readers):
            raise _Wrong(f"must have {len(readers)} values, not {len(value)}.")
        found: list[Any] = []
        try:
            for each in value:
                found.append(readers[0 if endless else len(found)](each))
        except _Wrong as wrong:
            raise wrong.within(f"[{len(found)}]") from None
        return value if type(value) is tuple and all(map(is_, found, value)) else tuple(found)

    return read


# ── one of several ──────────────────────────────────────────────────────────────────────────────────────────────────


def _union(*kinds: Any) -> Reader:
    """The value as the first kind that takes it; where none does, the complaint is that of the kind it looks like."""
    readers = {each: _reader(each) for each in kinds if each is not NoneType}
    optional = NoneType in kinds

    def read(value: Any) -> Any:
        if value is None and optional:
            return None
        held = [each for each in readers if _looks_like(each, value)] or list(readers)
        for each in held[:-1]:
            try:
                return readers[each](value)
            except (_Wrong, SpecError):
                continue
        if len(readers) > 1 and not _looks_like(held[-1], value):
            wanted = list(dict.fromkeys(map(_in_words, sorted(readers, key=_is_list))))
            raise _Wrong(f"must be {', '.join(wanted[:-1])} or {wanted[-1]}, not {written(value)}.")
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
    return _WANTED.get(kind, "one of some words" if origin is Literal else "an object")


def _literal(*words: Any) -> Reader:
    return _one_of({word: word for word in words})


def _one_of(members: Mapping[str, Any]) -> Reader:
    known = ", ".join(map(str, members))

    def read(value: Any) -> Any:
        if isinstance(value, str) and value in members:
            return members[value]
        near = did_you_mean(value[:60], members) if isinstance(value, str) else ""
        raise _Wrong(f"must be one of {known}, not {written(value)}.", near)

    return read


# ── plain values ────────────────────────────────────────────────────────────────────────────────────────────────────


def _ranged(kind: Any, within: Within) -> Reader:
    read = _reader(kind)
    least, most = within

    def read_within(value: Any) -> Any:
        found = read(value)
        if not least <= found <= most:
            wanted = f"be at least {least:,}" if found < least else f"be at most {most:,}"
            wanted = "not be negative" if found < least == 0 else wanted
            raise _Wrong(f"must {wanted} (got {written(found)}).")
        return found

    return read_within


def _whole(value: Any) -> int:
    if type(value) is not int or not -MOST <= value <= MOST:
        raise _wrong(int, value)
    return value


def _number(value: Any) -> float:
    if type(value) is float and math.isfinite(value):
        return value
    if type(value) is not int or not -MOST <= value <= MOST:
        raise _wrong(float, value)
    return value


def _text(value: Any) -> str:
    if type(value) is not str or not (value.isascii() or _encodes(value)):
        raise _wrong(str, value)
    return value


def _encodes(text: str) -> bool:
    """Half a surrogate pair, which JSON can write, is no text."""
    try:
        return bool(text.encode()) or True
    except UnicodeEncodeError:
        return False


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise _wrong(bool, value)
    return value


def _wrong(kind: type, value: object) -> _Wrong:
    if type(value) is int and kind in (int, float):
        return _Wrong(f"must be a number of at most 18 digits (got {written(value)}).")
    return _Wrong(f"must be {_WANTED[kind]}, not {written(value)}.")


def _any(value: Any) -> Any:
    _check_plain(value, _Left(), _number)
    return value


def _object_value(value: Any) -> Any:
    _check_plain(value, _Left(), _real)
    return value


def _real(value: Any) -> float:
    """Of a kind that a float can hold, be it infinite."""
    if type(value) is int and value.bit_length() > 1000:
        raise _Wrong(f"must be a number of at most 300 digits (got {written(value)}).")
    number: float = value
    return number


class _Left:
    """How much of a plain value may still come."""

    def __init__(self) -> None:
        self.values, self.depth = MOST_VALUES, DEEPEST


def _check_plain(value: Any, left: _Left, number: Reader) -> None:
    """Raise _Wrong for what JSON does not have, nested too deep, or unrolled to too many values."""
    left.values -= 1
    if left.values < 0:
        raise _of_all(f"holds more than {MOST_VALUES:,} values, those behind aliases included.")
    if value is None or type(value) is bool:
        return
    if type(value) in (int, float):
        number(value)
    elif isinstance(value, str):
        _text(str(value))
    elif isinstance(value, (list, tuple)):
        _check_inner(value, ((f"[{place}]", each) for place, each in enumerate(value)), left, number)
    elif isinstance(value, Mapping):
        _check_inner(value, ((f".{_plain_key(name)}", each) for name, each in value.items()), left, number)
    else:
        raise _Wrong(f"must be a plain value, not {written(value)}.")


def _plain_key(name: Any) -> Any:
    """YAML has numbers for names too: max_memory: {0: 20GiB}."""
    if name is not None and type(name) not in (str, int, float, bool):
        raise _Wrong(f"has a name that is no text: {written(name)}.")
    return _text(name) if type(name) is str else name


def _of_all(what: str) -> _Wrong:
    wrong = _Wrong(what, "Write out what is meant.")
    wrong.of_all = True
    return wrong


def _check_inner(holder: object, named: Iterable[tuple[str, Any]], left: _Left, number: Reader) -> None:
    if not left.depth:
        raise _of_all("is nested too deep, or holds itself.")
    left.depth -= 1
    for place, each in named:
        try:
            _check_plain(each, left, number)
        except _Wrong as wrong:
            raise wrong.within(place, holder) from None
    left.depth += 1


_PLAIN: Mapping[Any, Reader] = {int: _whole, float: _number, str: _text, bool: _flag, Any: _any, object: _object_value}
_OF_ORIGIN: Mapping[Any, Callable[..., Reader]] = {
    Annotated: _ranged, Union: _union, UnionType: _union, tuple: _tuple, Mapping: _mapping, dict: _mapping,
    Literal: _literal,
}  # fmt: skip
