"""The answer of `plan` as a JSON document: stable keys, bytes as integers, names as the specs have them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from enum import Enum
from typing import TYPE_CHECKING, Any

from peftbench.decide.plan.plan import Plan
from peftbench.decide.verdict import PROMISES, Verdict
from peftbench.inputs.card.gpu import CardConstants, GpuSpec
from peftbench.inputs.model.parts import Layer
from peftbench.inputs.model.spec import ModelSpec, OtherModel
from peftbench.inputs.model.weights import num_parameters
from peftbench.memory import Component, MemoryProfile
from peftbench.report.plan.time import effects_document, time_document

if TYPE_CHECKING:
    from peftbench.decide.plan.advice import Change
    from peftbench.dryrun.extrapolate import Extrapolation
    from peftbench.dryrun.session import DryRun
    from peftbench.dryrun.trace.replay import Failure, Replay
    from peftbench.dryrun.trace.timeline import Holder, Point

SCHEMA_VERSION = 2
"""Raised when a key changes its meaning or goes; new keys do not raise it.

2: "verdict" is the one that counts, that of a dry run where one was made. Its "fit" has "risky" between "tight", for
which what is expected to be reserved has to fit, and "does_not_fit"; it is null where a setting that is not priced may
turn it.
"""

Document = dict[str, Any]
Command = Callable[["Plan", "Change"], str]
GPU = ("name", "product", "memory_bytes", "memory_source", "context_bytes", "in_use_bytes", "usable_bytes")
VERDICT = ("fit", "headroom_bytes", "reason", "required_bytes", "high_bytes", "usable_bytes")
CHANGE = ("option", "before", "after", "device_bytes", "fit", "price", "arguments")
"""`arguments` are what to type over the question; `before` and `after` of several options are joined by " + "."""
POINTS, HOLDERS = 400, 50
"""So many of each are in the course of a dry run."""
SIZES = (
    "allocated_bytes", "reserved_bytes", "device_bytes", "device_low_bytes", "device_high_bytes", "needed_bytes",
)  # fmt: skip


def plan_document(model: ModelSpec | OtherModel, plans: Iterable[Plan], command: Command | None = None) -> Document:
    """Everything that `plan` found out about one model, ready for json.dumps; `command` is what leads to a change."""
    fields = asdict(model) if isinstance(model, ModelSpec) else model._asdict()
    fields.pop("split_experts", None)  # of the recipe that it is built by, which each plan has
    if not fields.get("clips_qkv"):
        fields.pop("clips_qkv", None)  # OLMo alone has it
    if fields.pop("own_layers", ()):
        assert isinstance(model, ModelSpec)
        fields["layers"] = [_layer(layer) for layer in model.layers]
    return {
        "schema_version": SCHEMA_VERSION,
        "model": {"name": model.name, "num_parameters": num_parameters(model), **fields},
        "plans": [_plan(plan, command) for plan in plans],
    }


def _layer(layer: Layer) -> Document:
    """Its parts, each with its kind: {"mixer": {"kind": "Attention", "heads": 32, …}, …}; null where it has none."""
    return {
        name: {"kind": type(part).__name__, **part._asdict()} if part else None
        for name, part in layer._asdict().items()
    }


def _plan(plan: Plan, command: Command | None) -> Document:
    return {
        "gpu": _gpu(plan.gpu) if plan.gpu else None,
        "task": plan.task,
        "method": plan.method,
        "recipe": plan.options,
        "trainable_parameters": plan.trainable_parameters,
        "trainable_share": plan.trainable_share,
        "adapter_file_bytes": plan.adapter_file_bytes,
        "memory": _memory(plan.profile),
        "verdict": _verdict(plan.judged, plan.final_verdict),
        "unpriced": [_named(each, "setting", "effect", "most_bytes") for each in plan.unpriced],
        "changes": [_change(plan, change, command) for change in plan.changes],
        "notes": list(plan.notes),
        **({"dry_run": _dry_run(plan.dry_run, plan.dry_verdict)} if plan.dry_run else {}),
        **(effects_document(plan.effects) if plan.effects else {}),
        **({"time": time_document(plan.time)} if plan.task == "training" else {}),
    }


def _verdict(judged: Verdict | None, final: Verdict | None) -> Document | None:
    """What is left of a verdict that nothing may turn; null without a card."""
    if judged is None:
        return None
    promise = PROMISES[judged.fit]._asdict()
    return _named(judged, *VERDICT) | ({"ran_out": promise} if final else {"fit": None, "ran_out": None})


def _change(plan: Plan, change: Change, command: Command | None) -> Document:
    """The whole command too, where there was a question to type it over."""
    fit = {"fit": None} if change.doubted else {}
    return {**_named(change, *CHANGE), **fit, **({"command": command(plan, change)} if command else {})}


def _dry_run(dry_run: DryRun | Extrapolation, verdict: Verdict | None) -> Document:
    """The keys of "memory", a verdict, and the course of the run; null for an extrapolation, which has none."""
    return {
        **_memory(dry_run.profile),
        "verdict": _verdict(verdict, verdict),
        "end": _end(getattr(dry_run, "on_card", None)),
        "facts": dict(dry_run.facts),
        "timeline": _timeline(dry_run),
    }


def _end(card: Replay | None) -> Document | None:
    """How the replay on the card ended; null where there was none, as for an extrapolation."""
    if card is None:
        return None
    failure = card.failure
    where = _failure(failure) if failure else None
    return {"ran_out": failure is not None, "num_alloc_retries": card.num_alloc_retries, "failure": where}


def _failure(failure: Failure) -> Document:
    """Where it ran out of memory; the first step is 0."""
    block, error = failure.block, failure.error
    return {
        "step": failure.step, "phase": failure.phase.value, "module": block.module, "operation": block.operation,
        "requested_bytes": block.bytes, **_named(error, "allocated_bytes", "reserved_bytes"),
    }  # fmt: skip


def _named(value: object, *names: str) -> Document:
    """Attributes under their own names; members of enumerations by their value."""
    found = {name: getattr(value, name) for name in names}
    return {name: each.value if isinstance(each, Enum) else each for name, each in found.items()}


def _gpu(gpu: GpuSpec) -> Document:
    capability = gpu.compute_capability
    return {
        **_named(gpu, *GPU),
        "compute_capability": f"{capability[0]}.{capability[1]}" if capability else None,
        "has_bfloat16": gpu.has_bfloat16,
        **({"calibration": _calibration(gpu.calibration)} if gpu.calibration else {}),
    }


def _calibration(found: CardConstants) -> Document:
    """Only of a card that has one; constants that its runs did not decide are null or left out."""
    return {
        "said": found.said,
        "context_bytes": found.context_bytes._asdict() if found.context_bytes else None,
        "slack_factor": found.slack_factor._asdict() if found.slack_factor else None,
        "time": dict(found.time),
        "time_error": found.time_error,
    }


def _memory(profile: MemoryProfile) -> Document:
    """`phases` are sums of the components alive in them, so that of the peak phase is `needed_bytes`."""
    return {
        "components": [_component(component, profile) for component in profile.components],
        "phases": {phase.value: profile.device_in(phase) for phase in profile.phases},
        **_named(profile, "peak_phase", *SIZES),
    }


def _component(component: Component, profile: MemoryProfile) -> Document:
    return {
        **_named(component, "part", "bytes", "low_bytes", "high_bytes", "basis"),
        "phases": [phase.value for phase in profile.phases if phase in component.phases],
        "because": component.because,
    }


# ── the course of a dry run ─────────────────────────────────────────────────────────────────────────────


def _timeline(dry_run: DryRun | Extrapolation) -> Document | None:
    """Points, marks of phases, and what holds the memory at the peak; `event` counts allocations and frees."""
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
    """Bytes are integers, as the allocator rounded them."""
    names = ("event", "step", "phase", "module", "operation", "allocated_bytes", "reserved_bytes")
    return {**_named(point, *names), "parts": {part.value: size for part, size in point.parts.items()}}


def _holder(holder: Holder) -> Document:
    block = holder.block
    shape = [int(size) for size in block.shape.split(",") if size]
    found = _named(block, "part", "module", "operation")
    return {"bytes": holder.bytes, **found, "shape": shape, "dtype": block.dtype}
