"""Plans as flat rows for CSV: bytes as integers, units in the column names, columns in a fixed order."""

from __future__ import annotations

from peftbench.decide.plan.plan import Plan
from peftbench.decide.recipe import SPECS
from peftbench.inputs.model.weights import num_parameters
from peftbench.inputs.recipe.option import options_of
from peftbench.memory import Part
from peftbench.report.plan.document import SIZES
from peftbench.report.plan.time import effects_document, time_document

IDENTITY = ("model", "num_parameters", "gpu", "gpu_memory_bytes", "gpu_usable_bytes", "method")
ANSWER = ("trainable_parameters", "adapter_file_bytes", "peak_phase", *SIZES, "fit", "headroom_bytes")
PARTS = {f"peak_{part.name.lower()}_bytes": part for part in Part}
DRY_RUN = ("dry_run_allocated_bytes", "dry_run_reserved_bytes", "dry_run_device_bytes", "dry_run_fit")
LATENCY = ("prefill_s", "decode_s_per_token", "decode_low_s_per_token", "decode_high_s_per_token", "tokens_per_s")
ACCUMULATED = ("peak_accumulated_bytes",)
SEVERAL_GPUS = ("peak_gathered_bytes", "peak_buckets_bytes", "peak_nccl_bytes")
TRAINING_TIME = (
    "step_s", "step_low_s", "step_high_s", "training_tokens_per_s", "training_tokens_per_s_low",
    "training_tokens_per_s_high", "time_calibrated", "framework",
)  # fmt: skip
_ON_ONE_GPU = tuple(column for column in PARTS if column not in (*SEVERAL_GPUS, *ACCUMULATED))
_FOUND = (*IDENTITY, "task", *ANSWER, *_ON_ONE_GPU, *DRY_RUN, *LATENCY, *SEVERAL_GPUS, *TRAINING_TIME, *ACCUMULATED)
"""Frozen, as the places of options are, which stand between these: new columns come at the end."""


def option_columns(*specs: type) -> dict[int, str]:
    """The options of these specs by their place in a row, in the order of the places."""
    placed = {option.column: option.name for spec in specs for option in options_of(spec) if option.column}
    return dict(sorted(placed.items()))


def _columns() -> tuple[str, ...]:
    """What was found, with each option put in its place."""
    columns = list(_FOUND)
    for place, name in OPTIONS.items():
        columns.insert(place - 1, name)
    return tuple(columns)


OPTIONS = option_columns(*SPECS)
COLUMNS = _columns()


def plan_row(plan: Plan) -> dict[str, object]:
    """Every column of one plan."""
    profile, verdict, final, gpu = plan.profile, plan.judged, plan.final_verdict, plan.gpu
    return {
        "model": plan.model.name, "num_parameters": num_parameters(plan.model), "gpu": gpu.name if gpu else None,
        "gpu_memory_bytes": gpu.memory_bytes if gpu else None, "gpu_usable_bytes": gpu.usable_bytes if gpu else None,
        "method": plan.method, **dict.fromkeys(OPTIONS.values()), **plan.options,
        "trainable_parameters": plan.trainable_parameters, "adapter_file_bytes": plan.adapter_file_bytes,
        "peak_phase": profile.peak_phase.value, **{name: getattr(profile, name) for name in SIZES},
        "fit": final.fit.value if final else None, "headroom_bytes": verdict.headroom_bytes if verdict else None,
        **{column: profile.bytes_of(part) for column, part in PARTS.items()},
        **_dry_run(plan), **_latency(plan), **_training_time(plan),
    }  # fmt: skip


def _latency(plan: Plan) -> dict[str, object]:
    """Expected times of inference; empty for training, and where they are not known."""
    found = effects_document(plan.effects)["latency"] if plan.effects else None
    return {**dict.fromkeys(LATENCY), **(found or {})}


def _training_time(plan: Plan) -> dict[str, object]:
    """Expected time of a step; empty for inference, and where it is not known."""
    found = time_document(plan.time) or {}
    return {column: found.get(column.removeprefix("training_").removeprefix("time_")) for column in TRAINING_TIME}


def _dry_run(plan: Plan) -> dict[str, object]:
    if plan.dry_run is None:
        return dict.fromkeys(DRY_RUN)
    profile, verdict = plan.dry_run.profile, plan.dry_verdict
    sizes = (profile.allocated_bytes, profile.reserved_bytes, profile.device_bytes)
    return dict(zip(DRY_RUN, (*sizes, verdict.fit.value if verdict else None), strict=True))
