"""The record of a dry run: every block of memory that was asked for and given back, in order, and what it held."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from peftbench.memory import Part, Phase

VERSION = 2
"""Version of the JSON form; a cached trace of another version is not read."""

EMPTY_CACHE = "empty_cache"
"""The name of a mark where torch.cuda.empty_cache() is called."""


class Block(NamedTuple):
    """One allocation: a tensor's storage, or a kernel's scratch."""

    bytes: int
    """Bytes asked for; the allocator rounds them up."""
    part: Part
    module: str
    """The module that was running, or whose weight or output the backward pass was reading."""
    operation: str
    shape: str
    dtype: str
    stream: int = 0
    """The stream that it was asked for on; the allocator gives it to no other."""


class Mark(NamedTuple):
    """A place in the events: the beginning of a phase of a step, or EMPTY_CACHE."""

    position: int
    step: int
    name: str

    @property
    def phase(self) -> Phase | None:
        """The phase that begins here; None where the cache is emptied."""
        return None if self.name == EMPTY_CACHE else Phase(self.name)


@dataclass
class Trace:
    """Blocks by number, and events: n where block n is allocated, ~n where it is freed."""

    blocks: list[Block] = field(default_factory=list)
    events: list[int] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    """What the run found out besides: parameter counts, attention kernels, versions of the libraries."""


UNREADABLE = (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError)


def trace_to_json(trace: Trace) -> dict[str, Any]:
    """Columns rather than rows, and each text once: a hundred thousand blocks take a few megabytes."""
    texts: dict[str, int] = {}
    rows = ((block.bytes, block.stream, block.part.value, *block[2:-1]) for block in trace.blocks)
    columns = [
        [texts.setdefault(value, len(texts)) if isinstance(value, str) else value for value in column]
        for column in zip(*rows, strict=True)
    ]
    return {
        "version": VERSION, "texts": list(texts), "blocks": columns, "events": trace.events,
        "marks": [list(mark) for mark in trace.marks], "facts": trace.facts,
    }  # fmt: skip


def trace_from_json(value: Mapping[str, Any]) -> Trace:
    """The inverse of trace_to_json. Raises one of UNREADABLE for anything else."""
    if value["version"] != VERSION:
        raise ValueError(f"a trace of version {value['version']}")
    texts = value["texts"]
    sizes, streams, *rest = value["blocks"] or [[], []]
    named = [[texts[index] for index in column] for column in rest]
    rows = zip(sizes, streams, *named, strict=True)
    blocks = [
        Block(size, Part(part), module, operation, shape, dtype, stream)
        for size, stream, part, module, operation, shape, dtype in rows
    ]
    return Trace(blocks, list(value["events"]), [Mark(*mark) for mark in value["marks"]], dict(value["facts"]))
