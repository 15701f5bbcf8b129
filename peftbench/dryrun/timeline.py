"""The course of memory over a dry run, in few enough points to draw, and what held it at the peak."""

from __future__ import annotations

from typing import NamedTuple

from peftbench.dryrun.allocator import CachingAllocator
from peftbench.dryrun.allocator_settings import AllocatorSettings
from peftbench.dryrun.replay import Replay, Walk, alive_at
from peftbench.dryrun.trace import Block, Trace
from peftbench.memory import Part, Phase

POINTS = 600
"""About as many as a screen has columns."""


class Point(NamedTuple):
    """The highest moment of a stretch of events. Sizes in bytes."""

    event: int
    step: int
    phase: Phase
    module: str
    """The module of the last block that was allocated."""
    operation: str
    reserved_bytes: int
    parts: dict[Part, int]

    @property
    def allocated_bytes(self) -> int:
        """Of all parts."""
        return sum(self.parts.values())


class Holder(NamedTuple):
    """A block that was alive at the peak, and where it came from."""

    block: Block
    bytes: int
    """As the allocator rounded it."""


def timeline(trace: Trace, replayed: Replay, settings: AllocatorSettings, points: int = POINTS) -> tuple[Point, ...]:
    """One point for each of so many stretches of equally many events, and one for the peak of every phase.

    Loading is left out but for its end: it only adds weights.
    """
    reserved = _reserved(trace, settings)
    positions = _positions(trace, replayed, points)
    walk = Walk(trace, replayed.sizes)
    found = []
    for position in positions:
        walk.to(position)
        mark = next(mark for mark in reversed(trace.marks) if mark.position < position and mark.phase)
        last = next(event for event in reversed(trace.events[:position]) if event >= 0)
        block = trace.blocks[last]
        parts = {part: size for part, size in walk.parts.items() if size}
        found.append(Point(
            position, mark.step, Phase(mark.name), block.module, block.operation, reserved[position - 1], parts
        ))  # fmt: skip
    return tuple(found)


def _positions(trace: Trace, replayed: Replay, points: int) -> list[int]:
    """The highest moment of each stretch."""
    first = next((mark.position for mark in trace.marks if mark.phase not in (None, Phase.LOAD)), 1)
    end = len(trace.events)
    stride = max((end - first) // points, 1)
    found = {peak.position for peak in replayed.peaks if peak.position} | {max(first, 1), end}
    current = highest = at = 0
    for position, event in enumerate(trace.events, start=1):
        current += replayed.sizes.get(event, 0) if event >= 0 else -replayed.sizes.get(~event, 0)
        if current >= highest:
            highest, at = current, position
        if position > first and (position - first) % stride == 0:
            found.add(at)
            highest = 0
    return sorted(position for position in found if position >= max(first, 1))


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


def holders(trace: Trace, replayed: Replay, most: int | None = None) -> tuple[Holder, ...]:
    """What is alive at the peak of the run, the largest first."""
    numbers = alive_at(trace, replayed.highest.position)
    return tuple(Holder(trace.blocks[number], replayed.sizes[number]) for number in numbers[:most] if number in replayed.sizes)
