"""The settings of another tool's file: read by name and type, so that what was never asked for can be listed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from peftbench.base.errors import SpecError
from peftbench.inputs.recipe import TrainingSpec

T = TypeVar("T")
Values = Mapping[str, object]
MOST = 10**9
"""The largest count that is taken for meant: of tokens, sequences, steps, GPUs or a rank."""


class Unread(NamedTuple):
    """A setting that changes the memory and that no formula reads."""

    setting: str
    does: str
    """In words that recipes/effects.py knows, as "trains and stores whole modules"."""
    value: object = None

    def __str__(self) -> str:
        return f"{self.setting} {self.does}: that is not priced."


class Reading(NamedTuple):
    """What a file asks for."""

    tool: str
    model: str | None
    """Hub id or path; None where the file names none."""
    recipe: TrainingSpec
    notes: tuple[str, ...] = ()
    """What a reader should know: defaults that the file left open, and settings that are not priced."""
    unread: tuple[Unread, ...] = ()
    """The settings among them that are known to change the memory."""


class Settings:
    """Values by name; each method takes the tool's own default, which is also what null stands for."""

    def __init__(self, values: Values, tool: str, prefix: str = "") -> None:
        self.values, self.tool, self.prefix = values, tool, prefix
        self.asked: set[str] = set()
        self.sections: dict[str, Settings] = {}
        self.said: list[str | Unread] = []
        """What a reader should know of what was read."""

    def given(self, name: str) -> object:
        """The value as it stands, None where there is none."""
        self.asked.add(name)
        return self.values.get(name)

    def _checked(self, name: str, default: T, fits: Callable[[Any], bool], wanted: str) -> T:
        value: Any = self.given(name)
        if value is not None and not fits(value):
            raise self.wrong(name, value, wanted)
        return default if value is None else value

    def flag(self, name: str, default: bool) -> bool:
        """True or false."""
        return self._checked(name, default, lambda value: isinstance(value, bool), "true or false")

    def count(self, name: str, default: int) -> int:
        """A whole number above zero."""
        wanted = f"a whole number from 1 to {MOST:,}"
        return self._checked(name, default, lambda value: type(value) is int and 1 <= value <= MOST, wanted)

    def share(self, name: str, default: float) -> float:
        """A number from 0 up to, but not including, 1."""
        wanted = "a number from 0 to less than 1"
        return float(self._checked(name, default, lambda value: type(value) in (int, float) and 0 <= value < 1, wanted))

    def word(self, name: str, default: str) -> str:
        """A text that is not empty."""
        return self.word_or_none(name) or default

    def word_or_none(self, name: str) -> str | None:
        """A text, or None where there is none."""
        return self._checked(name, None, lambda value: isinstance(value, str) and bool(value.strip()), "a word")

    def names(self, name: str) -> tuple[str, ...] | None:
        """A list of names, or one text with commas between; None where there is none."""
        value = self.given(name)
        if value is None or value == []:
            return None
        found = value.split(",") if isinstance(value, str) else value
        if not isinstance(found, list) or not all(isinstance(each, str) and each.strip() for each in found):
            raise self.wrong(name, value, "a list of names")
        return tuple(dict.fromkeys(each.strip() for each in found))

    def section(self, name: str) -> Settings:
        """The settings below a name; empty where there are none."""
        nothing: Values = {}
        value = self._checked(name, nothing, _is_mapping, "a mapping of names to values")
        if name not in self.sections:
            self.sections[name] = Settings(value, self.tool, f"{self.prefix}{name}.")
        return self.sections[name]

    def left(self) -> list[str]:
        """Names that hold something and that no question was about."""
        return [name for name, value in self.values.items() if name not in self.asked and value is not None]

    def wrong(self, name: str, value: object, wanted: str) -> SpecError:
        """The error of a value that cannot be."""
        what = f"{self.prefix}{name} of the {self.tool} file must be {wanted}, not {_short(value)}."
        return SpecError(what, f"Correct it there, or leave it out for {self.tool}'s default.")


def _short(value: object) -> str:
    """A value for a message; lists and mappings by their kind, as YAML's anchors can make them endless."""
    return f"a {type(value).__name__}" if isinstance(value, (list, dict)) else repr(str(value)[:60])


def _is_mapping(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)
