"""Plain values as JSON and YAML have them: exact types and bounded sizes; complaints name their place."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from peftbench.base.errors import SpecError
from peftbench.base.visible import written

Reader = Callable[[Any], Any]
"""The value as it is wanted; raises Wrong."""

MOST = 10**18
"""The largest whole number that is one: bytes and tokens are far below."""
DEEPEST = 100
"""Lists in lists and objects in objects; real files have ten."""
MOST_VALUES = 300_000
"""Values of one plain document, where an alias of YAML counts as often as it is used."""

WANTED = {int: "a whole number", float: "a finite number", str: "text", bool: "true or false"}


class Lined(dict[str, Any]):
    """A mapping of a file whose parser knows the line of each key."""

    def __init__(self, values: Mapping[str, Any], lines: Mapping[str, int]) -> None:
        super().__init__(values)
        self.lines = lines


def line_of(holder: object, key: str) -> int:
    """The line of a key of a mapping; 0 where nobody knows it."""
    return holder.lines.get(key, 0) if isinstance(holder, Lined) else 0


class Wrong(Exception):
    """A value that cannot be; who holds it puts its place before it, and its line where that is known."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.what, self.hint = what, hint
        self.place, self.line = "", 0
        self.of_all = False
        """Whether it is about the whole document, wherever it was noticed."""

    def within(self, place: str, holder: object = None) -> Wrong:
        """The same, of a value at this place."""
        if self.of_all:
            return self
        self.place = place + self.place
        self.line = self.line or line_of(holder, place[1:])
        return self

    def error(self, where: str) -> SpecError:
        """As users see it: "case.recipe.r (line 3) must be a whole number, not '64'."."""
        place = f"{where}{self.place}".lstrip(".")
        place = place if len(place) <= 120 else f"{place[:80]} … {place[-30:]}"
        line = f" (line {self.line})" if self.line else ""
        return SpecError(f"{place or 'it'}{line} {self.what}", self.hint)


def check_classes(**given: tuple[object, Any]) -> None:
    """Raise SpecError for an argument that is not of its class: model=(model, ModelSpec), gpu=(gpu, GpuSpec | None)."""
    for name, (value, kind) in given.items():
        if not isinstance(value, kind):
            wanted = getattr(kind, "__name__", None) or " or ".join(each.__name__ for each in kind.__args__)
            raise SpecError(f"{name} must be of class {wanted}, not {written(value)}.")


def read_whole(value: Any) -> int:
    if type(value) is not int or not -MOST <= value <= MOST:
        raise _wrong(int, value)
    return value


def read_number(value: Any) -> float:
    if type(value) is float and math.isfinite(value):
        return value
    if type(value) is not int or not -MOST <= value <= MOST:
        raise _wrong(float, value)
    return value


def read_text(value: Any) -> str:
    if type(value) is not str or not (value.isascii() or _encodes(value)):
        raise _wrong(str, value)
    return value


def _encodes(text: str) -> bool:
    """Half a surrogate pair, which JSON can write, is no text."""
    try:
        return bool(text.encode()) or True
    except UnicodeEncodeError:
        return False


def read_flag(value: Any) -> bool:
    if type(value) is not bool:
        raise _wrong(bool, value)
    return value


def _wrong(kind: type, value: object) -> Wrong:
    if type(value) is int and kind in (int, float):
        return Wrong(f"must be a number of at most 18 digits (got {written(value)}).")
    return Wrong(f"must be {WANTED[kind]}, not {written(value)}.")


def read_plain(value: Any) -> Any:
    _check_plain(value, _Left(), read_number)
    return value


def read_loose(value: Any) -> Any:
    _check_plain(value, _Left(), _real)
    return value


def _real(value: Any) -> float:
    """Of a kind that a float can hold, be it infinite."""
    if type(value) is int and value.bit_length() > 1000:
        raise Wrong(f"must be a number of at most 300 digits (got {written(value)}).")
    number: float = value
    return number


class _Left:
    """How much of a plain value may still come."""

    def __init__(self) -> None:
        self.values, self.depth = MOST_VALUES, DEEPEST


def _check_plain(value: Any, left: _Left, number: Reader) -> None:
    """Raise Wrong for what JSON does not have, nested too deep, or unrolled to too many values."""
    left.values -= 1
    if left.values < 0:
        raise _of_all(f"holds more than {MOST_VALUES:,} values, those behind aliases included.")
    if value is None or type(value) is bool:
        return
    if type(value) in (int, float):
        number(value)
    elif isinstance(value, str):
        read_text(str(value))
    elif isinstance(value, (list, tuple)):
        _check_inner(value, ((f"[{place}]", each) for place, each in enumerate(value)), left, number)
    elif isinstance(value, Mapping):
        _check_inner(value, ((f".{_plain_key(name)}", each) for name, each in value.items()), left, number)
    else:
        raise Wrong(f"must be a plain value, not {written(value)}.")


def _plain_key(name: Any) -> Any:
    """YAML has numbers for names too: max_memory: {0: 20GiB}."""
    if name is not None and type(name) not in (str, int, float, bool):
        raise Wrong(f"has a name that is no text: {written(name)}.")
    return read_text(name) if type(name) is str else name


def _of_all(what: str) -> Wrong:
    wrong = Wrong(what, "Write out what is meant.")
    wrong.of_all = True
    return wrong


def _check_inner(holder: object, named: Iterable[tuple[str, Any]], left: _Left, number: Reader) -> None:
    if not left.depth:
        raise _of_all("is nested too deep, or holds itself.")
    left.depth -= 1
    for place, each in named:
        try:
            _check_plain(each, left, number)
        except Wrong as wrong:
            raise wrong.within(place, holder) from None
    left.depth += 1


def read_key(name: Any) -> str:
    if type(name) is not str:
        raise Wrong(f"is no name: names are text, not {written(name)}.", "Put it in quotation marks.")
    return read_text(name)
