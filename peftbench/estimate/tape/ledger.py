"""Which bytes are alive, and the moments at which a step can peak, as linear forms in the number of tokens.

Sizes are linear in the tokens of the micro-batch, and in the pairs of tokens and keys where attention keeps scores:
(per_token + per_pair × sequence length) × tokens + fixed.
"""

from collections.abc import Iterable
from typing import NamedTuple

from peftbench.base.units import human_bytes
from peftbench.memory import Part

Size = tuple[int, int, int]
"""Bytes as (per token, per pair of a token and a key, fixed)."""
Sizes = dict[Part, Size]
Sized = tuple[int, int, int, Part]
"""A block: a Size and what it holds."""


class Moment(NamedTuple):
    """The bytes alive at one instant, in all and by part."""

    per_token: int
    per_pair: int
    fixed: int
    by_part: Sizes

    def bytes_at(self, tokens: int, sequence_length: int = 0) -> int:
        """Bytes alive at this instant for a micro-batch of so many tokens in sequences of this length."""
        return (self.per_token + self.per_pair * sequence_length) * tokens + self.fixed


class Ledger:
    """The bytes alive now, every past moment that is the peak for some number of tokens, and what came and went.

    `blocks` has the size and the part of every storage by its number; `events` are n where number n came, ~n where it
    went.
    """

    __slots__ = ("_moments", "blocks", "by_part", "events", "fixed", "per_pair", "per_token")

    def __init__(self) -> None:
        self.per_token = 0
        self.per_pair = 0
        self.fixed = 0
        self.by_part: Sizes = {}
        self.blocks: list[Sized] = []
        self.events: list[int] = []
        self._moments: list[Moment] = []

    def add(self, part: Part, per_token: int, fixed: int, per_pair: int) -> int:
        """Note a storage that comes, and return its number."""
        number = len(self.blocks)
        self.blocks.append((per_token, per_pair, fixed, part))
        self.events.append(number)
        self.change(part, per_token, fixed, per_pair)
        self.observe()
        return number

    def take(self, number: int) -> None:
        """Note that a storage goes."""
        per_token, per_pair, fixed, part = self.blocks[number]
        self.events.append(~number)
        self.change(part, -per_token, -fixed, -per_pair)

    def change(self, part: Part, per_token: int, fixed: int, per_pair: int = 0) -> None:
        """Add (or, with negative sizes, take away) bytes of a part."""
        self.per_token += per_token
        self.per_pair += per_pair
        self.fixed += fixed
        before = self.by_part.get(part, (0, 0, 0))
        self.by_part[part] = (before[0] + per_token, before[1] + per_pair, before[2] + fixed)

    def observe(self) -> None:
        """Remember this moment, unless a remembered one is at least as large whatever the tokens."""
        per_token, per_pair, fixed = self.per_token, self.per_pair, self.fixed
        for moment in self._moments:  # spelled out: this runs for every allocation
            if moment[0] >= per_token and moment[1] >= per_pair and moment[2] >= fixed:
                return
        now = Moment(per_token, per_pair, fixed, dict(self.by_part))
        self._moments = [moment for moment in self._moments if not exceeds(now, moment)]
        self._moments.append(now)

    def take_moments(self) -> tuple[Moment, ...]:
        """Hand over the remembered moments and begin a new stretch of time."""
        moments, self._moments = tuple(self._moments), []
        return moments


class SharedLedger:
    """A ledger for what only a share of the tokens goes through: one of several experts."""

    __slots__ = ("_of", "_part", "_whole")

    def __init__(self, whole: Ledger, part: int, of: int) -> None:
        self._whole = whole
        self._part, self._of = part, of

    def add(self, part: Part, per_token: int, fixed: int, per_pair: int) -> int:
        """As of the whole ledger, for its share of the tokens."""
        return self._whole.add(part, per_token * self._part // self._of, fixed, per_pair)

    def take(self, number: int) -> None:
        """As of the whole ledger."""
        self._whole.take(number)


AnyLedger = Ledger | SharedLedger


def terms_of(per_token: int, fixed: int, tokens: int) -> str:
    """How a size adds up: "8,192 tokens × 320 B + 16.25 MiB"."""
    terms = [f"{tokens:,} tokens × {per_token:,} B"] if per_token else []
    if fixed:
        terms.append(human_bytes(fixed))
    return " + ".join(terms)


def exceeds(a: Moment, b: Moment) -> bool:
    """Whether a is at least as large as b for every number of tokens and every sequence length."""
    return a.per_token >= b.per_token and a.per_pair >= b.per_pair and a.fixed >= b.fixed


def add_sizes(a: Sizes, b: Sizes) -> Sizes:
    """Add part by part."""
    total = dict(a)
    for part, (per_token, per_pair, fixed) in b.items():
        before = total.get(part, (0, 0, 0))
        total[part] = (before[0] + per_token, before[1] + per_pair, before[2] + fixed)
    return total


def nonzero(sizes: Sizes) -> Sizes:
    """Leave out the parts that hold nothing."""
    return {part: size for part, size in sizes.items() if any(size)}


def shift(moments: Iterable[Moment], base: Sizes) -> list[Moment]:
    """The same moments above other bytes that are alive all the while."""
    per_token, per_pair, fixed = (sum(size[i] for size in base.values()) for i in range(3))
    return [
        Moment(m.per_token + per_token, m.per_pair + per_pair, m.fixed + fixed, add_sizes(m.by_part, base))
        for m in moments
    ]


def largest_moments(moments: Iterable[Moment]) -> tuple[Moment, ...]:
    """Drop the moments that another one exceeds whatever the tokens."""
    kept: list[Moment] = []
    for moment in sorted(moments, key=lambda m: m[:3], reverse=True):
        if not any(exceeds(larger, moment) for larger in kept):
            kept.append(moment)
    return tuple(kept)
