"""From a replayed trace to the profile that every tier returns: components by part and phase, with reasons."""

from __future__ import annotations

from collections import defaultdict

from peftbench.base.units import human_bytes
from peftbench.dryrun.trace.replay import PhasePeak, Replay, alive_at
from peftbench.dryrun.trace.trace import Block, Trace
from peftbench.estimate.parts.slack import context
from peftbench.estimate.sharding.reserved import nccl
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.inputs.recipe import ParallelismSpec
from peftbench.inputs.recipe.parallelism import ONE_GPU
from peftbench.memory import Basis, Component, MemoryProfile, Part, Phase

ALLOCATED_ERROR = {"cuda": 0.005, "cpu": 0.1}
"""Relative error of a traced part, by the device that was faked. The recorder is within 0.5 % of real runs
(tests/dryrun/trace/test_recorder.py); a fake CPU has other kernels for attention, dropout and autocast than a card."""
RESERVED_ERROR = 0.03
"""Error as a share of everything reserved: the driver and other threads' requests are not simulated."""


def profile_of(
    trace: Trace, replayed: Replay, gpu: GpuSpec | None, parallelism: ParallelismSpec = ONE_GPU
) -> MemoryProfile:  # fmt: skip
    """The highest step of each phase; the slack of the peak's phase is that of the whole run."""
    highest: dict[Phase, PhasePeak] = {}
    for peak in replayed.peaks:
        if peak.phase not in highest or peak.allocated_bytes > highest[peak.phase].allocated_bytes:
            highest[peak.phase] = peak
    phases, device = frozenset(highest), trace.facts["device"]
    components = [
        traced(part, size, device, frozenset(alive), _because(trace, highest, part, alive))
        for (part, size), alive in _by_part(highest).items()
    ]
    components += [_slack(peak, replayed) for peak in highest.values()]
    components.sort(key=lambda component: list(Part).index(component.part))
    components = [c for c in components if c.bytes]
    beyond = *nccl(parallelism, gpu, phases), context(gpu, phases)
    return MemoryProfile((*components, *beyond), gpu.usable_bytes if gpu else None)


def _by_part(highest: dict[Phase, PhasePeak]) -> dict[tuple[Part, int], list[Phase]]:
    """Phases in which a part has the same size share a component."""
    found: dict[tuple[Part, int], list[Phase]] = defaultdict(list)
    for phase, peak in highest.items():
        for part, size in peak.parts.items():
            found[part, size].append(phase)
    return found


def traced(part: Part, size: int, device: str, phases: frozenset[Phase], because: str) -> Component:
    """A part whose `size` in bytes was found on fake tensors of this device, with its band."""
    spread = round(size * ALLOCATED_ERROR[device])
    return Component(part, size, Basis.TRACED, phases, because, size - spread, size + spread)


def _because(trace: Trace, highest: dict[Phase, PhasePeak], part: Part, phases: list[Phase]) -> str:
    """The number of blocks, and the largest of them."""
    position = max((highest[phase] for phase in phases), key=lambda peak: peak.allocated_bytes).position
    blocks = [trace.blocks[number] for number in alive_at(trace, position) if trace.blocks[number].part is part]
    count = f"{len(blocks):,} blocks" if len(blocks) > 1 else "1 block"
    return f"{count}, the largest {describe(blocks[0])}" if blocks else count


def describe(block: Block) -> str:
    """ "1.00 GiB float32 [2048,128256] of aten::_log_softmax in lm_head"."""
    tensor = f" {block.dtype} [{block.shape}]" if block.dtype else ""
    return f"{human_bytes(block.bytes)}{tensor} of {block.operation} in {block.module or 'the model itself'}"


def _slack(peak: PhasePeak, replayed: Replay) -> Component:
    reserved = replayed.reserved_bytes if peak is replayed.highest else peak.reserved_bytes
    size, spread = reserved - peak.allocated_bytes, round(reserved * RESERVED_ERROR)
    because = "segments that the simulated allocator keeps beyond the tensors"
    band = max(size - spread, 0), size + spread
    return Component(Part.SLACK, size, Basis.TRACED, frozenset({peak.phase}), because, *band)
