"""A dry run as PyTorch's own memory snapshot, for https://pytorch.org/memory_viz and torch.cuda._memory_viz.

Keys and actions are those of torch.cuda.memory._snapshot() (torch 2.13). A frame, which would be a line of a stack,
says instead what was allocated: operation and module, part and tensor, step and phase.
"""

from __future__ import annotations

import pickle
from functools import cache
from typing import Any

from peftbench.allocator.settings import AllocatorSettings
from peftbench.allocator.simulation import CachingAllocator, Segment, SegmentBlock
from peftbench.dryrun.trace.trace import Block, Trace
from peftbench.memory import Phase

PROTOCOL = 4
"""The newest pickle protocol that the page's own reader understands (`unpickle` in torch/utils/viz/MemoryViz.js)."""

Frame = dict[str, Any]
Entry = dict[str, Any]


def snapshot_bytes(trace: Trace, settings: AllocatorSettings) -> bytes:
    """What torch.cuda.memory._dump_snapshot() would write at the end of the run."""
    return pickle.dumps(snapshot(trace, settings), protocol=PROTOCOL)


def snapshot(trace: Trace, settings: AllocatorSettings) -> dict[str, Any]:
    """What torch.cuda.memory._snapshot() would return at the end of the run, recorded from the first weight on.

    Each allocation has its part as `category`, by which the page chooses colours. The page adds the category "unknown"
    where no entry has it, and fails at that (`categores` in MemoryViz.js), so the closing entry has it.
    """
    recording = _Recording(trace, settings)
    recording.run()
    closing = _entry("snapshot", 0, 0, 0, [_frame("peftbench", "dry run")], "unknown")
    return {
        "segments": [recording.segment(segment) for segment in recording.segments()],
        "device_traces": [[*recording.entries, closing]],
        "allocator_settings": {
            "expandable_segments": settings.expandable_segments,
            "max_split_size": settings.max_split_size_bytes,
            "garbage_collection_threshold": settings.garbage_collection_threshold,
            "roundup_power2_divisions": list(settings.roundup_power2_divisions),
        },
        "external_annotations": [],
    }


class _Recording(CachingAllocator):
    """An allocator that writes down what torch.cuda.memory._record_memory_history() would. Sizes in bytes."""

    def __init__(self, trace: Trace, settings: AllocatorSettings) -> None:
        super().__init__(settings)
        self.entries: list[Entry] = []
        self._trace = trace
        self._moment = _moment(1, Phase.LOAD)
        self._frames: dict[int, list[Frame]] = {}
        self._cause: list[Frame] = []
        """The frames of what is going on, for the segments that it needs."""

    def run(self) -> None:
        """Go over the events; a mark comes before the event at its position."""
        marks = iter([*self._trace.marks, None])
        mark = next(marks)
        for position, event in enumerate(self._trace.events):
            while mark and mark.position <= position:
                if mark.phase is None:
                    self._cause = [_frame("torch.cuda", "empty_cache"), self._moment]
                    self.empty_cache()
                else:
                    self._moment = _moment(mark.step + 1, mark.phase)
                mark = next(marks)
            if event >= 0:
                self._allocated(event)
            else:
                self._freed(~event)

    def segment_changes(self, action: str, address: int, size: int, stream: int) -> None:
        """Memory from cudaMalloc, or back to it."""
        self.entries.append(_entry(action, address, size, stream, self._cause))

    def _allocated(self, number: int) -> None:
        """torch writes down what was asked for, not what it was rounded to."""
        block = self._trace.blocks[number]
        if not block.bytes:
            return
        self._cause = self._frames[number] = [*_frames(block), self._moment]
        self.malloc(number, block.bytes, block.stream)
        where = self.address_of(number), block.bytes, block.stream
        self.entries.append(_entry("alloc", *where, self._cause, block.part.value))

    def _freed(self, number: int) -> None:
        """Who frees a tensor is not recorded; the frames are those of its allocation, and when it was freed."""
        if number not in self._frames:
            return
        frames = [*self._frames.pop(number), _frame("freed in", self._moment["name"], self._moment["line"])]
        block = self._trace.blocks[number]
        where = self.address_of(number), block.bytes, block.stream
        self.free(number)
        self.entries += [_entry(action, *where, frames) for action in ("free_requested", "free_completed")]

    # ── the state at the end ────────────────────────────────────────────────────────────────────────────────

    def segment(self, segment: Segment) -> Entry:
        """One of "segments", with its blocks."""
        live = [block for block in segment.blocks if block.ident is not None]
        active = sum(block.size_bytes for block in live)
        return {
            "device": 0,
            "address": segment.address,
            "total_size": segment.size_bytes,
            "allocated_size": active,
            "active_size": active,
            "requested_size": sum(block.requested_bytes for block in live),
            "stream": segment.stream,
            "segment_type": "large" if segment.is_large else "small",
            "segment_pool_id": (0, 0),
            "is_expandable": segment.is_expandable,
            "frames": [],
            "blocks": [self._block(block) for block in segment.blocks],
        }

    def _block(self, block: SegmentBlock) -> Entry:
        free = block.ident is None
        return {
            "address": block.address,
            "size": block.size_bytes,
            "requested_size": block.requested_bytes,
            "state": "inactive" if free else "active_allocated",
            "frames": [] if block.ident is None else self._frames[block.ident],
        }


def _entry(action: str, address: int, size: int, stream: int, frames: list[Frame], category: str = "") -> Entry:
    entry = {"action": action, "addr": address, "size": size, "stream": stream, "frames": frames}
    return {**entry, "category": category} if category else entry


def _frames(block: Block) -> tuple[Frame, Frame]:
    """The page writes "filename:line:name", one frame a line."""
    tensor = f"{block.dtype} [{block.shape}]" if block.dtype else "scratch"
    return _frame(block.module or "model", block.operation), _frame(block.part.value, tensor)


def _moment(step: int, phase: Phase) -> Frame:
    """Loading comes before the first step."""
    return _frame("step", phase.value, 0 if phase is Phase.LOAD else step)


@cache
def _frame(filename: str, name: str, line: int = 0) -> Frame:
    """One and the same for the same text, so that the pickle holds it once."""
    return {"filename": filename, "line": line, "name": name}
