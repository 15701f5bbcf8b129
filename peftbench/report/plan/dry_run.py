"""Estimate and dry run side by side: by part at the dry run's peak, the three sizes, and what holds the memory."""

from __future__ import annotations

from peftbench.base.units import GIB, gib, human_bytes
from peftbench.decide.plan.plan import Plan
from peftbench.memory import MemoryProfile, Part
from peftbench.report.format.sheet import UNKNOWN, Table
from peftbench.report.format.terminal import render, wrap

HOLDERS = 5
"""So many of the largest tensors are named."""
_BEYOND = (Part.SLACK, Part.NCCL, Part.CONTEXT)


def side_by_side(plan: Plan, width: int) -> str:
    """The block that follows an answer; empty without a dry run, and where there is nothing to lay beside it."""
    if plan.dry_run is None or not plan.by_formula:
        return ""
    return render(parts(plan), width)


def parts(plan: Plan) -> Table:
    """Every part in the phase in which the dry run peaks, then the sizes."""
    assert plan.dry_run is not None
    estimate, traced = plan.profile, plan.dry_run.profile
    phase = traced.peak_phase

    rows = [_row(part, estimate, traced) for part in Part if part not in _BEYOND]
    rows.append(_sum("allocated", estimate.allocated_in(phase), traced.allocated_in(phase)))
    rows += [_row(part, estimate, traced) for part in _BEYOND]
    rows.append(_sum("device", estimate.device_in(phase), traced.device_in(phase)))
    headings = (f"{plan.method}, GiB, {phase}", "estimate", "dry run", "difference")
    return Table("", headings, [row for row in rows if row], "lrrr")


def _row(part: Part, estimate: MemoryProfile, traced: MemoryProfile) -> tuple[str, ...]:
    """Empty where neither has such a part in the phase in which the dry run peaks."""
    estimated, seen = (sum(component.bytes for component in profile.alive_in(traced.peak_phase)
                           if component.part is part) for profile in (estimate, traced))  # fmt: skip
    if not estimated and not seen:
        return ()
    difference = f"{(estimated - seen) / GIB:+.2f}"
    return part.value, _gib(estimated), _gib(seen), "" if difference in ("+0.00", "-0.00") else difference


def _sum(name: str, estimated: int, traced: int) -> tuple[str, ...]:
    return name, gib(estimated), gib(traced), f"{100 * (estimated / traced - 1):+.1f} %" if traced else UNKNOWN


def _gib(size_bytes: int) -> str:
    return gib(size_bytes) if size_bytes else UNKNOWN


def held(plan: Plan, width: int) -> str:
    """The largest tensors at the peak, weights left out; empty where there is no timeline."""
    from peftbench.dryrun.session import DryRun
    from peftbench.dryrun.trace.timeline import holders

    if not isinstance(plan.dry_run, DryRun):
        return ""
    found = [
        holder for holder in holders(plan.dry_run.trace, plan.dry_run.replay)
        if holder.block.part not in (Part.WEIGHTS, Part.UNQUANTIZED, Part.EXPERTS)
    ]  # fmt: skip
    rows = [(human_bytes(size), f"{block.dtype} [{block.shape}]", f"{block.operation} in {block.module or 'the loss'}")
            for block, size in found[:HOLDERS]]  # fmt: skip
    heading = "\n".join(wrap("The largest tensors at the dry run's peak, weights left out:", width))
    return f"{heading}\n{render(Table('', ('', '', ''), rows, 'rll'), width)}"
