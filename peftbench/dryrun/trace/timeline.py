"""The course of memory over a dry run, in few enough points to draw, and what held it at the peak."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from peftbench.allocator.settings import AllocatorSettings
from peftbench.allocator.simulation import CachingAllocator
from peftbench.dryrun.trace.replay import Replay, Walk, alive_at
from peftbench.dryrun.trace.trace import Block, Trace
from peftbench.memory import Part, Phase

POINTS = 600
"""About as many as a screen has columns."""

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)")


class Point(NamedTuple):
    """The highest moment of a stretch of events. Sizes in bytes."""

    event: int
    """How many events had happened, the last of them included."""
    step: int
    phase: Phase
    module: str
    """The module of the last block that was allocated."""
    operation: str
    reserved_bytes: int
    parts: dict[Part, int]

    @property
    def allocated_bytes(self) -> int:
        """Bytes of all parts."""
        return sum(self.parts.values())


class Holder(NamedTuple):
    """A block that was alive at the peak, and where it came from."""

    block: Block
    bytes: int
    """Bytes as the allocator rounded them."""


class HolderGroup(NamedTuple):
    """Blocks at the peak that differ only in the number of their layer."""

    like: Block
    """One of them; its module has * for a number in which they differ."""
    blocks: int
    """How many they are."""
    bytes: int
    """Bytes of all of them together, as the allocator rounded them."""


# ── the course ──────────────────────────────────────────────────────────────────────────────────────────────


def timeline(trace: Trace, replayed: Replay, settings: AllocatorSettings, points: int = POINTS) -> tuple[Point, ...]:
    """One point for each of so many stretches of equally many events, for each peak, and where phases begin and end.

    Loading is left out but for its end, for it only adds weights; unless the run peaks there.
    """
    positions = _positions(trace, replayed, points)
    reserved = _reserved(trace, settings)
    phases = [mark for mark in trace.marks if mark.phase]
    begins = [mark.position for mark in phases]
    walk, last, found = Walk(trace, replayed.sizes), 0, []
    for position in positions:
        last = next((event for event in reversed(trace.events[walk.position : position]) if event >= 0), last)
        mark, block = phases[max(bisect_left(begins, position) - 1, 0)], trace.blocks[last]
        found.append(Point(
            position, mark.step, Phase(mark.name), block.module, block.operation, reserved[position - 1],
            walk.parts_at(position),
        ))  # fmt: skip
    return tuple(found)


def _positions(trace: Trace, replayed: Replay, points: int) -> list[int]:
    """Which moments are shown, as numbers of events that have happened."""
    end = len(trace.events)
    first = next((mark.position for mark in trace.marks if mark.phase not in (None, Phase.LOAD)), end)
    first = max(min(first, replayed.highest.position), 1)
    found = {first, end, *(peak.position for peak in replayed.peaks)}
    for mark in trace.marks:
        found |= {mark.position} if mark.phase else {mark.position, mark.position + 1}
    found.update(_highest(trace, replayed.sizes, first, max((end - first) // points, 1)))
    return sorted(position for position in found if first <= position <= end)


def _highest(trace: Trace, sizes: dict[int, int], first: int, stride: int) -> Iterable[int]:
    """The highest moment of each stretch of so many events after the first ones."""
    current = highest = at = 0
    for position, event in enumerate(trace.events, start=1):
        current += sizes.get(event, 0) if event >= 0 else -sizes.get(~event, 0)
        if current > highest or not at:
            highest, at = current, position
        if (position - first) % stride == 0:
            yield at
            at = 0
    if at:
        yield at


def _reserved(trace: Trace, settings: AllocatorSettings) -> list[int]:
    """Reserved bytes after every event."""
    allocator = CachingAllocator(settings)
    flushes = {mark.position for mark in trace.marks if mark.phase is None}
    found = []
    for position, event in enumerate(trace.events):
        if position in flushes:
            allocator.empty_cache()
        if event >= 0:
            allocator.malloc(event, trace.blocks[event].bytes)
        else:
            allocator.free(~event)
        found.append(allocator.reserved_bytes)
    return found


# ── the peak ────────────────────────────────────────────────────────────────────────────────────────────────


def holders(trace: Trace, replayed: Replay, most: int | None = None) -> tuple[Holder, ...]:
    """What is alive at the peak of the run, the largest first."""
    numbers = [number for number in alive_at(trace, replayed.highest.position) if number in replayed.sizes]
    return tuple(Holder(trace.blocks[number], replayed.sizes[number]) for number in numbers[:most])


def alike(found: Iterable[Holder]) -> tuple[HolderGroup, ...]:
    """The holders in groups of those that only differ in their layer, the largest group first."""
    groups: dict[Block, list[Holder]] = defaultdict(list)
    for holder in found:
        groups[holder.block._replace(module=_NUMBER.sub("*", holder.block.module))].append(holder)
    made = [HolderGroup(_like(members), len(members), sum(one.bytes for one in members)) for members in groups.values()]
    return tuple(sorted(made, key=lambda group: -group.bytes))


def _like(members: list[Holder]) -> Block:
    """The first of them, with * for each number in which the others differ."""
    first = members[0].block
    columns = zip(*(holder.block.module.split(".") for holder in members), strict=True)
    module = ".".join(words[0] if len(set(words)) == 1 else "*" for words in columns)
    return first._replace(module=module)
