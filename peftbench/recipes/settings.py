"""The settings of another tool's file: read by name and type, so that what was never asked for can be told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from peftbench.base.errors import SpecError
from peftbench.inputs.recipe.training import TrainingSpec

Values = Mapping[str, object]
MOST = 10**9
"""The largest count that is taken for meant: of tokens, sequences, steps, GPUs or a rank."""


class Reading(NamedTuple):
    """What a file asks for."""

    tool: str
    model: str | None
    """Hub id or path; None where the file names none."""
    recipe: TrainingSpec
    notes: tuple[str, ...]
    """What a reader should know: defaults that the file left open, and settings that are not priced."""


class Settings:
    """Values by name; each method takes the tool's own default, which is also what null stands for."""

    def __init__(self, values: Values, tool: str, prefix: str = "") -> None:
        self.values, self.tool, self.prefix = values, tool, prefix
        self.asked: set[str] = set()
        self.sections: dict[str, Settings] = {}
        self.said: list[str] = []
        """What a reader should know of what was read."""

    def given(self, name: str) -> object:
        """The value as it stands, None where there is none."""
        self.asked.add(name)
        return self.values.get(name)

    def flag(self, name: str, default: bool) -> bool:
        """True or false."""
        value = self.given(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.wrong(name, value, "true or false")
        return value

    def count(self, name: str, default: int) -> int:
        """A whole number above zero."""
        value = self.given(name)
        if value is None:
            return default
        if type(value) is not int or not 1 <= value <= MOST:
            raise self.wrong(name, value, f"a whole number from 1 to {MOST:,}")
        return value

    def share(self, name: str, default: float) -> float:
        """A number from 0 up to, but not including, 1."""
        value = self.given(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
            raise self.wrong(name, value, "a number from 0 to less than 1")
        return float(value)

    def word(self, name: str, default: str) -> str:
        """A text that is not empty."""
        return self.word_or_none(name) or default

    def word_or_none(self, name: str) -> str | None:
        """A text, or None where there is none."""
        value = self.given(name)
        if value is not None and (not isinstance(value, str) or not value.strip()):
            raise self.wrong(name, value, "a word")
        return value

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
        value = self.given(name)
        if value is not None and (not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value)):
            raise self.wrong(name, value, "a mapping of names to values")
        if name not in self.sections:
            self.sections[name] = Settings(value or {}, self.tool, f"{self.prefix}{name}.")
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
