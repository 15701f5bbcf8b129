"""A common claim beside the cases that decide how true it is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Truth(str, Enum):
    """The verdict on a claim: what its cases say together."""

    TRUE = "true"
    PARTLY = "partly"
    FALSE = "false"

    __str__ = str.__str__


@dataclass(frozen=True, slots=True)
class Case:
    """One way to read a claim: the assumptions, the figure they give, and whether it agrees."""

    assumptions: str
    computed: str
    holds: bool


@dataclass(frozen=True, slots=True)
class Claim:
    """What is said, where it is commonly heard, and why it is so or not."""

    said: str
    heard: str
    cases: tuple[Case, ...]
    why: str

    @property
    def truth(self) -> Truth:
        """True when it holds in every case, partly when in some."""
        holding = [case.holds for case in self.cases]
        if all(holding):
            return Truth.TRUE
        return Truth.PARTLY if any(holding) else Truth.FALSE
