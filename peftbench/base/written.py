"""A wrong value as an error message quotes it."""

from __future__ import annotations

from enum import Enum
from reprlib import Repr
from typing import Any


class _Shortened(Repr):
    """Plain values at a readable length; the rest by its type, since its own repr may be endless, or fail."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxother = 2, 60
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = 3
        self.maxstring = 60

    def repr_int(self, x: int, level: int) -> str:
        """Python refuses to write integers of thousands of digits."""
        return repr(x) if x.bit_length() < 150 else f"a number of {round(x.bit_length() * 0.30103):,} digits"

    def repr_instance(self, x: Any, level: int) -> str:
        """A number that is no float or int, True, False, None or an Enum as they are; else the name of the type."""
        if isinstance(x, dict):
            return self.repr_dict(x, level)
        plain = x is None or isinstance(x, (bool, float, complex, Enum))
        return repr(x) if plain else f"an object of type {type(x).__name__}"


def written(value: object) -> str:
    """A wrong value in an error message, as Python writes it, cut to about 60 characters."""
    text = _Shortened().repr(value)
    return text if len(text) <= 70 else f"{text[:67]}..."
