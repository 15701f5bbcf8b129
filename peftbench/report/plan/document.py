"""The answer of `plan` as a JSON document: stable keys, bytes as integers, names as the specs have them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from peftbench.decide.plan.advice import Change
from peftbench.decide.plan.plan import Plan
from peftbench.decide.verdict import Verdict
from peftbench.inputs.card.calibration import CardConstants
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.inputs.model.spec import ModelSpec, OtherModel
from peftbench.inputs.model.weights import num_parameters
from peftbench.memory import Component, MemoryProfile

if TYPE_CHECKING:
    from peftbench.decide.plan.effects import Effects
    from peftbench.dryrun.extrapolate import Extrapolation
    from peftbench.dryrun.session import DryRun

SCHEMA_VERSION = 1
"""Raised when a key changes its meaning or goes; new keys do not raise it."""

Document = dict[str, Any]


def plan_document(model: ModelSpec | OtherModel, plans: Iterable[Plan]) -> Document:
    """Everything that `plan` found out about one model, ready for json.dumps."""
    return {
        "schema_version": SCHEMA_VERSION,
        "model": {"name": model.name, "num_parameters": num_parameters(model), **asdict(model)},
        "plans": [_plan(plan) for plan in plans],
    }


def _plan(plan: Plan) -> Document:
    return {
        "gpu": _gpu(plan.gpu) if plan.gpu else None,
        "task": plan.task,
        "method": plan.method,
        "recipe": plan.options,
        "trainable_parameters": plan.trainable_parameters,
        "trainable_share": plan.trainable_share,
        "adapter_file_bytes": plan.adapter_file_bytes,
        "memory": _memory(plan.profile),
        "verdict": _verdict(plan.verdict) if plan.verdict else None,
        "changes": [_change(change) for change in plan.changes],
        "notes": list(plan.notes),
        **({"dry_run": _dry_run(plan.dry_run, plan.dry_verdict)} if plan.dry_run else {}),
        **(_effects(plan.effects) if plan.effects else {}),
        **({"time": _time(plan)} if plan.task == "training" else {}),
    }


def _time(plan: Plan) -> Document | None:
    from peftbench.report.plan.time import time_document

    return time_document(plan.time)


def _effects(effects: Effects) -> Document:
    """The keys "latency" and "published" of inference; loaded where there is such a plan."""
    from peftbench.report.plan.effects import effects_document

    return effects_document(effects)


def _dry_run(dry_run: DryRun | Extrapolation, verdict: Verdict | None) -> Document:
    """The keys of "memory", a verdict, and the course of the run; null for an extrapolation, which has none."""
    from peftbench.report.plan.timeline import timeline_document

    return {
        **_memory(dry_run.profile),
        "verdict": _verdict(verdict) if verdict else None,
        "facts": dict(dry_run.facts),
        "timeline": timeline_document(dry_run),
    }


def _gpu(gpu: GpuSpec) -> Document:
    capability = gpu.compute_capability
    return {
        "name": gpu.name,
        "product": gpu.product,
        "memory_bytes": gpu.memory_bytes,
        "memory_source": gpu.memory_source,
        "context_bytes": gpu.context_bytes,
        "in_use_bytes": gpu.in_use_bytes,
        "usable_bytes": gpu.usable_bytes,
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
    """`phases` are sums of the components alive in them, so that of the peak phase is `device_bytes`."""
    return {
        "components": [_component(component, profile) for component in profile.components],
        "phases": {phase.value: profile.device_in(phase) for phase in profile.phases},
        "peak_phase": profile.peak_phase.value,
        "allocated_bytes": profile.allocated_bytes,
        "reserved_bytes": profile.reserved_bytes,
        "device_bytes": profile.device_bytes,
        "device_low_bytes": profile.device_low_bytes,
        "device_high_bytes": profile.device_high_bytes,
    }


def _component(component: Component, profile: MemoryProfile) -> Document:
    return {
        "part": component.part.value,
        "bytes": component.bytes,
        "low_bytes": component.low_bytes,
        "high_bytes": component.high_bytes,
        "basis": component.basis.value,
        "phases": [phase.value for phase in profile.phases if phase in component.phases],
        "because": component.because,
    }


def _verdict(verdict: Verdict) -> Document:
    return {
        "fit": verdict.fit.value,
        "headroom_bytes": verdict.headroom_bytes,
        "reason": verdict.reason,
        "required_bytes": verdict.required_bytes,
        "high_bytes": verdict.high_bytes,
        "usable_bytes": verdict.usable_bytes,
    }


def _change(change: Change) -> Document:
    """`arguments` are what to type; `before` and `after` of several options are joined by " + "."""
    return {
        "option": change.option,
        "before": change.before,
        "after": change.after,
        "device_bytes": change.device_bytes,
        "fit": change.fit.value,
        "price": change.price,
        "arguments": list(change.arguments),
    }
