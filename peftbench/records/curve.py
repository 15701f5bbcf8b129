"""Memory over time in few points: what a record keeps of its samples, and a page of a record's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import Literal

from peftbench.records.run import RunRecord, Sample

Column = Literal["used_bytes", "process_bytes"]
COLUMNS: tuple[Column, ...] = ("used_bytes", "process_bytes")
"""Columns whose peaks are kept."""
SHOWN, DRAWN = 300, 120
"""Samples, and times of phases, that a record keeps; samples that a chart draws."""


def thinned(record: RunRecord) -> RunRecord:
    """The record with as many samples as a chart draws."""
    found = record.measurement
    if len(found.samples) <= DRAWN:
        return record
    return replace(record, measurement=replace(found, samples=thin(found.samples, DRAWN)))


def thin(samples: Sequence[Sample], limit: int = SHOWN) -> tuple[Sample, ...]:
    """At most `limit` samples (4 or more), in their order, with the peaks of all.

    The first, the last and, of every stretch of an equal time, the one with the most memory of the device in use and
    the one with the most of the process.
    """
    if len(samples) <= limit:
        return tuple(samples)
    stretches = (limit - 2) // len(COLUMNS)
    start, span = samples[0].time_s, samples[-1].time_s - samples[0].time_s

    def stretch(number: int) -> int:
        return min(int((samples[number].time_s - start) / span * stretches), stretches - 1) if span else 0

    kept = {0, len(samples) - 1}
    for _, numbers in groupby(range(len(samples)), stretch):
        kept |= _highest(samples, tuple(numbers))
    return tuple(samples[number] for number in sorted(kept))


def _highest(samples: Sequence[Sample], numbers: Iterable[int]) -> set[int]:
    """The first sample with the highest value of each known column; the first one where none is known."""

    def height(number: int, column: Column) -> int:
        value = getattr(samples[number], column)
        return -1 if value is None else int(value)

    return {max(numbers, key=partial(height, column=column)) for column in COLUMNS}
