"""The course of a dry run as a JSON document: points, marks of phases, and what holds the memory at the peak."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peftbench.dryrun.extrapolate import Extrapolation
    from peftbench.dryrun.session import DryRun
    from peftbench.dryrun.trace.timeline import Holder, Point

Document = dict[str, Any]

POINTS, HOLDERS = 400, 50
"""So many of each go into a document."""


def timeline_document(dry_run: DryRun | Extrapolation) -> Document | None:
    """Bytes are integers, as the allocator rounded them; `event` counts allocations and frees."""
    from peftbench.dryrun.session import DryRun
    from peftbench.dryrun.trace.timeline import holders, timeline

    if not isinstance(dry_run, DryRun):
        return None
    trace, replayed = dry_run.trace, dry_run.replay
    return {
        "marks": [{"event": mark.position, "step": mark.step, "name": mark.name} for mark in trace.marks],
        "points": [_point(point) for point in timeline(trace, replayed, dry_run.settings, POINTS)],
        "peak_event": replayed.highest.position,
        "holders": [_holder(holder) for holder in holders(trace, replayed, HOLDERS)],
    }


def _point(point: Point) -> Document:
    return {
        "event": point.event,
        "step": point.step,
        "phase": point.phase.value,
        "module": point.module,
        "operation": point.operation,
        "allocated_bytes": point.allocated_bytes,
        "reserved_bytes": point.reserved_bytes,
        "parts": {part.value: size for part, size in point.parts.items()},
    }


def _holder(holder: Holder) -> Document:
    block = holder.block
    return {
        "bytes": holder.bytes,
        "part": block.part.value,
        "module": block.module,
        "operation": block.operation,
        "shape": [int(size) for size in block.shape.split(",") if size],
        "dtype": block.dtype,
    }
