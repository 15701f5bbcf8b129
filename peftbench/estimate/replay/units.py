"""A stretch of a step as an allocator sees it for so many tokens: large blocks one by one, small ones counted.

Requests of up to 1 MiB have segments of their own, of which little is lost. Large blocks that come and go within a
stretch and leave nothing beside them ask for nothing new where there is room for them: most layers are replayed
without, see `thinned`.
"""

from collections.abc import Iterable
from typing import NamedTuple

from peftbench.allocator.blocks import MIN_BLOCK_BYTES, SMALL_BYTES, aligned
from peftbench.estimate.tape.played import Events, Played
from peftbench.memory import Part


class Pass(NamedTuple):
    """One way through a stretch."""

    whole: Events
    """Every large block."""
    thin: Events
    """Those that outlive it, and what is alive when they come."""
    largest_bytes: int
    """The largest block that is left out."""
    most_bytes: int
    """They take together at most."""
    small_bytes: int
    """By how much the small blocks grow."""
    small_peak_bytes: int
    """By how much at most, on the way."""


class Left(NamedTuple):
    """What is alive after the stretch's backward: large blocks by number, the bytes of small ones."""

    numbers: tuple[int, ...]
    small_bytes: int


class Unit(NamedTuple):
    """A stretch for so many tokens."""

    sizes: tuple[int, ...]
    """Bytes of its blocks by number."""
    forward: Pass
    released: Pass
    backward: Pass
    first_backward: Pass
    """That of a first micro-batch, whose gradients of weights stay."""
    output: int
    incoming: int
    outgoing: int
    """As in Played."""
    gradients: Left
    """Gradients of weights."""
    held: Left
    """What the loop holds."""
    passing: Left
    """Gradients of weights that are added to those of an earlier micro-batch, and go."""


def unit_of(played: Played, tokens: int, length: int) -> Unit:
    """The stretch for a micro-batch of so many tokens in sequences of this length."""
    sizes = tuple((a + b * length) * tokens + fixed for a, b, fixed, _ in played.blocks)
    forward, released, backward = (_pass(each, sizes) for each in (played.forward, played.released, played.backward))
    alive = _outliving((*played.forward, *played.released, *played.backward)) - {played.output, played.outgoing}
    gone = {~event for event in played.backward if event < 0}
    weights = {number for number in range(len(sizes)) if _is_of_weight(played, number)}
    passing = gone & weights
    first = _pass(tuple(e for e in played.backward if ~e not in passing), sizes) if passing else backward
    return Unit(
        sizes, forward, released, backward, first, played.output, played.incoming, played.outgoing,
        _left(alive & weights, sizes), _left(alive - weights, sizes), _left(passing, sizes),
    )  # fmt: skip


def _left(numbers: set[int], sizes: tuple[int, ...]) -> Left:
    large = tuple(number for number in sorted(numbers) if sizes[number] > SMALL_BYTES)
    small = sum(aligned(sizes[number], MIN_BLOCK_BYTES) for number in numbers.difference(large))
    return Left(large, small)


def _is_of_weight(played: Played, number: int) -> bool:
    per_token, _, fixed, part = played.blocks[number]
    return part is Part.GRADIENTS and fixed > 0 and not per_token


def _pass(events: Events, sizes: tuple[int, ...]) -> Pass:
    numbers = [event if event >= 0 else ~event for event in events]
    large = tuple(event for event, number in zip(events, numbers, strict=True) if sizes[number] > SMALL_BYTES)
    small = [
        aligned(sizes[number], MIN_BLOCK_BYTES) * (1 if event >= 0 else -1)
        for event, number in zip(events, numbers, strict=True)
        if sizes[number] <= SMALL_BYTES
    ]
    thin = thinned(large)
    kept = set(thin)
    left_out = [event for event in large if event not in kept]
    asked = [sizes[event] if event >= 0 else -sizes[~event] for event in left_out]
    return Pass(large, thin, max(asked, default=0), _most(asked), sum(small), _most(small))


def _most(changes: Iterable[int]) -> int:
    """The largest sum on the way."""
    most = now = 0
    for change in changes:
        now += change
        if now > most:
            most = now
    return most


def _outliving(events: Events) -> set[int]:
    """The blocks that come and do not go."""
    alive: set[int] = set()
    for event in events:
        if event >= 0:
            alive.add(event)
        else:
            alive.discard(~event)
    return alive


def thinned(events: Events) -> Events:
    """Leave out what comes and goes while nothing comes that stays.

    An allocator that had room for it is afterwards as before: what is free depends only on where live blocks are.
    """
    gone = {~event for event in events if event < 0}
    kept: set[int] = set()
    passing: set[int] = set()
    for event in events:
        if event < 0:
            passing.discard(~event)
        elif event in gone:
            passing.add(event)
        else:
            kept |= passing
    passing = {event for event in events if event in gone} - kept
    return tuple(event for event in events if (event if event >= 0 else ~event) not in passing)
