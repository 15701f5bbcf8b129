"""Allocated memory of a deep model from runs of two, three and four layers, where it proves linear in depth.

Reserved memory is not linear: which freed blocks later tensors fit into depends on all of them. It is taken as the
share of what comes and goes that the deepest run has, and says so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from peftbench.dryrun.trace.profile import profile_of, traced
from peftbench.dryrun.trace.replay import replay
from peftbench.dryrun.trace.trace import Trace
from peftbench.dryrun.workload import DEPTH_KEYS, Workload
from peftbench.estimate.parts.card import traits_of
from peftbench.estimate.parts.slack import context, slack
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.libraries.refusal import Refused
from peftbench.memory import MemoryProfile, Part, Phase

DEPTHS = (2, 3, 4)
"""The first two say what a layer adds, the third whether it is true."""
TOLERANCE = 0.003
"""How far what the third is off may lead at full depth, as a share of what is allocated in a phase there."""
_STEADY = frozenset({
    Part.WEIGHTS, Part.QUANTIZATION_CONSTANTS, Part.UNQUANTIZED, Part.EXPERTS, Part.ADAPTERS, Part.OPTIMIZER,
    Part.LOGITS,
})  # fmt: skip

Sizes = dict[Phase, dict[Part, int]]


@dataclass(frozen=True)
class Extrapolation:
    """A DryRun without a timeline and without an allocator."""

    workload: Workload
    profile: MemoryProfile
    facts: Mapping[str, Any]
    gpu: GpuSpec | None


def extrapolate(
    workload: Workload, gpu: GpuSpec | None, run: Callable[[Workload], Trace]
) -> Extrapolation | None:
    """None where it would not be faster, or where depth proves not to be linear: run at full depth then."""
    config = json.loads(workload.config)
    depth = next((config[name] for name in DEPTH_KEYS if isinstance(config.get(name), int)), 0)
    adapter = workload.recipe.adapter
    if depth <= DEPTHS[-1] or (adapter and adapter.names_layers):  # PEFT ignores names of layers that are cut off
        return None
    if workload.recipe.parallelism.strategy != "none":  # each stream has blocks of its own: no formula for all depths
        return None
    try:
        traces = [run(replace(workload, layers=layers)) for layers in DEPTHS]
    except Refused:  # not every config can be cut
        return None
    second, third, fourth = (_sizes(trace, gpu) for trace in traces)
    grown = {
        phase: {part: size + (depth - 3) * (size - second[phase][part]) for part, size in sizes.items()}
        for phase, sizes in third.items()
    }
    if not _is_linear(second, third, fourth, grown, depth):
        return None
    facts = _facts(traces, depth)
    if facts["num_parameters"] != traces[-1].facts["full_num_parameters"]:
        return None  # layers that differ come later
    share = _slack_share(traces[-1], fourth, gpu)
    return Extrapolation(workload, _profile(grown, share, gpu, facts), facts, gpu)


def _dynamic_bytes(sizes: Sizes) -> int:
    """What comes and goes in a step, logits left out, which do not grow with depth."""
    return max(sum(size for part, size in parts.items() if part not in _STEADY) for parts in sizes.values())


def _slack_share(trace: Trace, sizes: Sizes, gpu: GpuSpec | None) -> float:
    profile = profile_of(trace, replay(trace), gpu)
    return profile.bytes_of(Part.SLACK) / max(_dynamic_bytes(sizes), 1)


def _sizes(trace: Trace, gpu: GpuSpec | None) -> Sizes:
    profile = profile_of(trace, replay(trace), gpu)
    sizes = {phase: dict.fromkeys(Part, 0) for phase in profile.phases}
    for phase, parts in sizes.items():
        for component in profile.alive_in(phase):
            parts[component.part] += component.bytes
        del parts[Part.SLACK], parts[Part.CONTEXT]
    return sizes


def _is_linear(second: Sizes, third: Sizes, fourth: Sizes, grown: Sizes, depth: int) -> bool:
    """An increment that is off is off once for each layer that was not run."""
    for phase, sizes in fourth.items():
        expected = 2 * sum(third[phase].values()) - sum(second[phase].values())
        off = abs(expected - sum(sizes.values())) * (depth - DEPTHS[1])
        if off > TOLERANCE * sum(grown[phase].values()):
            return False
    return True


def _facts(traces: list[Trace], depth: int) -> dict[str, Any]:
    """Counts are linear in depth too."""
    second, third = traces[0].facts, traces[1].facts
    counts = ("num_parameters", "trainable_parameters", "saved_bytes")
    return {**third, **{name: third[name] + (depth - 3) * (third[name] - second[name]) for name in counts}}


def _profile(sizes: Sizes, share: float, gpu: GpuSpec | None, facts: Mapping[str, Any]) -> MemoryProfile:
    components = [
        traced(part, size, facts["device"], frozenset({phase}), "from 2 and 3 layers")
        for phase, parts in sizes.items()
        for part, size in parts.items()
        if size
    ]
    phases = frozenset(sizes)
    kept = round(share * _dynamic_bytes(sizes))
    because = f"the share of what comes and goes that {DEPTHS[-1]} layers have"
    reserve = slack(kept, kept, kept, phases - {Phase.LOAD}, traits_of(gpu), because)
    return MemoryProfile((*components, reserve, context(gpu, phases)), gpu.usable_bytes if gpu else None)
