"""Prints how many malloc and free calls the simulator of PyTorch's allocator replays in a second, on one core.

Run it with the Python that has peftbench installed: python tests/benchmarks/allocator_events_per_second.py [--profile].
The goal: 300,000 a second, for the list of a training run (weights, then steps that keep tensors of each layer for the
backward pass) and for sizes and lifetimes drawn at random, which leave many more holes.
"""

from __future__ import annotations

import cProfile
import pstats
import random
import sys
import time
from collections.abc import Iterator, Sequence

from peftbench.allocator.settings import AllocatorSettings
from peftbench.allocator.simulation import CachingAllocator
from peftbench.base.units import KIB, MIB

Event = tuple[int, int]
"""An identifier with its bytes, or with -1 where it is freed."""
FREED = -1
LAYERS, STEPS, OPERATIONS = 32, 40, 60
SIZES = (512, 8 * KIB, 256 * KIB, 8 * MIB, 16 * MIB, 28 * MIB, 56 * MIB)
SETTINGS = (AllocatorSettings(), AllocatorSettings(expandable_segments=True))


def training_step(first: int, draw: random.Random) -> Iterator[Event]:
    """Forward: one tensor in four is kept for backward. Backward: each is freed after temporaries of its layer."""
    kept: list[int] = []
    for ident in range(first, first + LAYERS * OPERATIONS):
        yield ident, draw.choice(SIZES)
        if ident % 4:
            yield ident, FREED
        else:
            kept.append(ident)
    for number, ident in enumerate(reversed(kept), first + LAYERS * OPERATIONS):
        yield number, draw.choice(SIZES)
        yield ident, FREED
        yield number, FREED


def training() -> list[Event]:
    """Weights that stay, then steps."""
    weights = [(ident, SIZES[ident % len(SIZES)]) for ident in range(LAYERS * 7)]
    draw = random.Random(0)
    steps = range(len(weights), STEPS * 10_000, 10_000)
    return weights + [event for first in steps for event in training_step(first, draw)]


def fragmented(count: int = 200_000) -> list[Event]:
    """About 700 live tensors of any size up to 64 MiB; each event frees one of them or adds one."""
    draw = random.Random(0)
    live: list[int] = []
    events = []
    for ident in range(count):
        if draw.random() * 1400 < len(live):
            events.append((live.pop(draw.randrange(len(live))), FREED))
        else:
            live.append(ident)
            events.append((ident, int(64 * MIB * draw.random() ** 4) + 1))
    return events


def replay(events: Sequence[Event], settings: AllocatorSettings) -> CachingAllocator:
    """Run the events through a fresh allocator."""
    allocator = CachingAllocator(settings)
    malloc, free = allocator.malloc, allocator.free
    for ident, size_bytes in events:
        if size_bytes == FREED:
            free(ident)
        else:
            malloc(ident, size_bytes)
    return allocator


def report(name: str, events: Sequence[Event], settings: AllocatorSettings) -> None:
    """Time one replay and print a line."""
    started = time.perf_counter()
    allocator = replay(events, settings)
    seconds = time.perf_counter() - started
    kind = "expandable" if settings.expandable_segments else "default"
    peak = allocator.peak_reserved_bytes // MIB
    rate = len(events) / seconds
    print(f"{name:12} {kind:10} {len(events):8,} in {seconds:5.2f} s {rate:10,.0f} a second   peak {peak:,} MiB")


def main(profiled: bool) -> None:
    """Print the four rates, or where the time of the first goes."""
    lists = (("training", training()), ("fragmented", fragmented()))
    for name, events in lists:
        for settings in SETTINGS:
            report(name, events, settings)
    if profiled:
        profiler = cProfile.Profile()
        profiler.runcall(replay, lists[0][1], AllocatorSettings())
        pstats.Stats(profiler).sort_stats("tottime").print_stats(12)


if __name__ == "__main__":
    main("--profile" in sys.argv[1:])
