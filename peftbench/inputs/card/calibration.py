"""What was measured on one card in place of what holds for cards in general; the constants of its runs."""

from __future__ import annotations

from typing import NamedTuple

ENOUGH = 8
"""Records from which the range seen replaces the general band: the next one then lies in it 7 times in 9.

Of n + 1 values in random order the last is neither the least nor the most with probability (n - 1) / (n + 1).
"""


class Seen(NamedTuple):
    """A constant that records decided: its value, the least and the most of them, and how many there were."""

    value: float
    low: float
    high: float
    records: int

    @property
    def has_range(self) -> bool:
        """Whether `low` and `high` are of enough records to be a band."""
        return self.records >= ENOUGH


class CardConstants(NamedTuple):
    """Constants of one card under one stack; None where its records do not decide one."""

    context_bytes: Seen | None = None
    """CUDA context and loaded kernels: device peak less reserved."""
    slack_factor: Seen | None = None
    """Reserved less allocated, by what estimate/parts/slack.py expects of the same run."""
    time: tuple[tuple[str, float], ...] = ()
    """Fields of estimate.time.TimeConstants by name."""
    time_error: float | None = None
    """Held out: the factor within which nine of ten left-out cases were; None where too few were left out."""
    said: str = ""
    """On what it was fitted and how well it does on what it was not: one sentence for the screen."""
