"""Which bytes are alive, and the moments at which a step can peak, as linear forms in the number of tokens.

Sizes are linear in the tokens of the micro-batch, and in the pairs of tokens and keys where attention keeps scores:
(per_token + per_pair × sequence length) × tokens + fixed.
"""

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from peftbench.base.units import human_bytes
from peftbench.memory import Part

Size = tuple[int, int, int]
"""Bytes as (per token, per pair of a token and a key, fixed)."""
Sizes = dict[Part, Size]


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
    """The bytes alive now, and every past moment that is the peak for some number of tokens.

    `written` counts the tensors that were ever allocated, by (bytes a token, bytes a pair): kernels write each of them.
    """

    __slots__ = ("_moments", "by_part", "fixed", "per_pair", "per_token", "written")

    def __init__(self) -> None:
        self.per_token = 0
        self.per_pair = 0
        self.fixed = 0
        self.written: Counter[tuple[int, int]] = Counter()
        self.by_part: Sizes = {}
        self._moments: list[Moment] = []

    def allocate(self, part: Part, per_token: int, fixed: int, per_pair: int) -> None:
        """Add a tensor that a kernel writes, and remember the moment."""
        self.written[per_token, per_pair] += 1
        self.change(part, per_token, fixed, per_pair)
        self.observe()

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

    def allocate(self, part: Part, per_token: int, fixed: int, per_pair: int) -> None:
        """As of the whole ledger."""
        self._whole.allocate(part, per_token * self._part // self._of, fixed, per_pair)

    def change(self, part: Part, per_token: int, fixed: int, per_pair: int = 0) -> None:
        """As of the whole ledger; the same bytes with either sign are rounded alike."""
        shared = abs(per_token) * self._part // self._of
        self._whole.change(part, shared if per_token > 0 else -shared, fixed, per_pair)

    def observe(self) -> None:
        """As of the whole ledger."""
        self._whole.observe()


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
