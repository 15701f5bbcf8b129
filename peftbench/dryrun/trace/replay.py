"""Replay a trace through the simulated allocator: the peaks of every phase, and where memory would run out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from peftbench.allocator.settings import AllocatorSettings
from peftbench.allocator.simulation import CachingAllocator, HostAllocator, OutOfMemory
from peftbench.dryrun.trace.trace import Block, Mark, Trace
from peftbench.memory import Part, Phase

DEFAULT = AllocatorSettings()


class PhasePeak(NamedTuple):
    """The moment of a phase of a step at which the most was allocated."""

    step: int
    phase: Phase
    position: int
    """How many events had happened, this one included."""
    allocated_bytes: int
    reserved_bytes: int
    """The most that was reserved in this phase, perhaps at another moment."""
    parts: dict[Part, int]
    """Bytes of blocks by part, as the allocator rounded them; they sum to `allocated_bytes`."""


@dataclass(frozen=True)
class Failure:
    """Where the card would have run out of memory."""

    step: int
    phase: Phase
    block: Block
    error: OutOfMemory
    position: int
    """How many events had happened before."""


@dataclass(frozen=True)
class Replay:
    """A trace as one allocator saw it."""

    peaks: tuple[PhasePeak, ...]
    """Marks in the order of time; only those before a failure, where there is one."""
    sizes: dict[int, int]
    """Bytes that the allocator set aside for each block, by its number."""
    num_alloc_retries: int
    failure: Failure | None

    @property
    def highest(self) -> PhasePeak:
        """The peak of the whole run; the first of equals."""
        return max(self.peaks, key=lambda peak: peak.allocated_bytes)

    @property
    def reserved_bytes(self) -> int:
        """Peak of torch.cuda.memory_reserved()."""
        return max(peak.reserved_bytes for peak in self.peaks)


def replay(trace: Trace, settings: AllocatorSettings = DEFAULT, capacity_bytes: int | None = None) -> Replay:
    """Ask the allocator of a card for every block in turn; with a capacity it may run out."""
    return _replay(trace, CachingAllocator(settings, capacity_bytes))


def replay_on_host(trace: Trace) -> Replay:
    """The same with the allocator of a CPU."""
    return _replay(trace, HostAllocator())


def _replay(trace: Trace, allocator: CachingAllocator | HostAllocator) -> Replay:
    peaks: list[PhasePeak] = []
    sizes: dict[int, int] = {}
    failure = None
    for mark, end in pairwise([*trace.marks, Mark(len(trace.events), -1, "")]):
        if mark.phase is None:
            allocator.empty_cache()
        allocator.reset_peak()
        at, failure = _play(trace, mark, end.position, allocator, sizes)
        if mark.phase is not None:
            figures = allocator.peak_allocated_bytes, allocator.peak_reserved_bytes
            peaks.append(PhasePeak(mark.step, mark.phase, at, *figures, {}))
        if failure:
            break
    walk = Walk(trace, sizes)
    with_parts = tuple(peak._replace(parts=walk.parts_at(peak.position)) for peak in peaks)
    return Replay(with_parts, sizes, allocator.num_alloc_retries, failure)


def _play(
    trace: Trace, mark: Mark, end: int, allocator: CachingAllocator | HostAllocator, sizes: dict[int, int]
) -> tuple[int, Failure | None]:
    """The position of the highest moment of the events from a mark to the next, and the failure that ended them."""
    blocks, events, malloc, free = trace.blocks, trace.events, allocator.malloc, allocator.free
    highest, at = allocator.allocated_bytes, mark.position
    for position in range(mark.position, end):
        event = events[position]
        if event < 0:
            free(~event)
            continue
        try:
            sizes[event] = malloc(event, blocks[event].bytes, blocks[event].stream)
        except OutOfMemory as error:
            return at, Failure(mark.step, mark.phase or Phase.LOAD, blocks[event], error, position)
        if allocator.allocated_bytes > highest:
            highest, at = allocator.allocated_bytes, position + 1
    return at, None


class Walk:
    """Goes over the events in order and knows what is alive; sizes are the allocator's."""

    def __init__(self, trace: Trace, sizes: dict[int, int]) -> None:
        self.trace = trace
        self.sizes = sizes
        self.position = 0
        self.parts: dict[Part, int] = {}
        self.allocated_bytes = 0

    def to(self, position: int, each: Callable[[], None] = lambda: None) -> None:
        """Go on until so many events have happened; `each` is called after every one."""
        blocks, sizes, parts = self.trace.blocks, self.sizes, self.parts
        for event in self.trace.events[self.position : position]:
            number = event if event >= 0 else ~event
            change = sizes.get(number, 0) if event >= 0 else -sizes.get(number, 0)
            part = blocks[number].part
            parts[part] = parts.get(part, 0) + change
            self.allocated_bytes += change
            self.position += 1
            each()

    def parts_at(self, position: int) -> dict[Part, int]:
        """What is alive after so many events, in bytes by part; call it with rising positions."""
        self.to(position)
        return {part: size for part, size in self.parts.items() if size}


def alive_at(trace: Trace, position: int) -> list[int]:
    """The numbers of the blocks that are alive after so many events, the largest first."""
    alive: set[int] = set()
    for event in trace.events[:position]:
        if event >= 0:
            alive.add(event)
        else:
            alive.discard(~event)
    return sorted(alive, key=lambda number: (-trace.blocks[number].bytes, number))
