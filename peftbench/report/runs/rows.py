"""Runs as flat rows, one a record, for CSV and JSON: units in the column names, columns in a fixed order."""

from __future__ import annotations

from statistics import median

from peftbench.check.runs.comparison import Comparison
from peftbench.decide.recipe import SPECS, recipe_options
from peftbench.inputs.recipe import ParallelismSpec, TrainingSpec
from peftbench.memory import Phase
from peftbench.records.run import Measurement, RunRecord
from peftbench.report.plan.rows import option_columns

SCHEMA_VERSION = 1
"""Raised when a column changes its meaning or goes; new ones do not raise it."""

LIBRARIES = ("python", "torch", "transformers", "peft", "bitsandbytes", "accelerate", "peftbench")
IDENTITY = ("suite", "case", "key", "model", "method", "device", "product", "memory_bytes", "memory_limit_bytes")
COURSE = ("steps", "warmup_steps", "learning_rate", "seed")
OUTCOME = ("outcome", "message", "last_phase")
PHASES = {f"{phase.name.lower()}_allocated_bytes": phase for phase in Phase}
MEASURED = (
    "allocated_peak_bytes", "reserved_peak_bytes", "device_peak_bytes", "process_peak_bytes", "baseline_bytes",
    *PHASES, "alloc_retries", "num_parameters", "trainable_parameters", "step_median_s", "step_min_s", "step_max_s",
    "prefill_median_s", "tokens_per_s", "first_loss", "last_loss", "energy_j", "duration_s",
)  # fmt: skip
PREDICTED = (
    "predicted_allocated_bytes", "predicted_reserved_bytes", "predicted_device_bytes", "predicted_device_low_bytes",
    "predicted_device_high_bytes", "predicted_peak_phase", "verdict", "headroom_bytes", "allocated_error",
    "reserved_error", "device_error", "prediction_note",
)  # fmt: skip
PLACE = (
    "compute_capability", "multiprocessors", "driver", "threads", "platform", "alloc_conf", "started_at",
    *(f"{library}_version" for library in LIBRARIES),
)  # fmt: skip
_OPTIONS = ("task", *option_columns(*(spec for spec in SPECS if spec is not ParallelismSpec)).values())
_FIRST = 1 + _OPTIONS.index("padded")
COLUMNS = (*IDENTITY, *_OPTIONS[:_FIRST], *COURSE, *OUTCOME, *MEASURED, *PREDICTED, *PLACE, *_OPTIONS[_FIRST:])
"""Frozen: new columns come at the end, as do options that were added after `padded`. A run is of one GPU."""


def run_row(comparison: Comparison) -> dict[str, object]:
    """Every column of one record; errors are fractions, unknown is None."""
    record = comparison.record
    values = {**dict.fromkeys(COLUMNS), **_asked(record), **_seen(record), **_predicted(comparison), **_place(record)}
    return {column: values[column] for column in COLUMNS}


def step_median_s(measurement: Measurement) -> float | None:
    """The median of the timed steps; None where there are none."""
    return median(measurement.step_s) if measurement.step_s else None


def tokens_per_s(record: RunRecord) -> float | None:
    """Tokens trained on, or generated, in a second of the median step."""
    recipe, step_s = record.case.recipe, step_median_s(record.measurement)
    if not step_s:
        return None
    if isinstance(recipe, TrainingSpec):
        return recipe.tokens * recipe.gradient_accumulation_steps / step_s
    return recipe.batch_size * recipe.new_tokens / step_s


def _asked(record: RunRecord) -> dict[str, object]:
    case, recipe = record.case, record.case.recipe
    return {
        **recipe_options(recipe), "suite": record.suite, "case": case.id, "key": case.key, "model": case.model,
        "method": recipe.method, "memory_limit_bytes": case.memory_limit_bytes,
        **{name: getattr(case, name) for name in COURSE},
    }  # fmt: skip


def _seen(record: RunRecord) -> dict[str, object]:
    seen = record.measurement
    same = ("message", "device_peak_bytes", "process_peak_bytes", "baseline_bytes", "alloc_retries",
            "num_parameters", "trainable_parameters", "energy_j", "duration_s")  # fmt: skip
    peaks = {column: [peak.allocated_bytes for peak in seen.phases if peak.phase is phase]
             for column, phase in PHASES.items()}  # fmt: skip
    return {
        **{name: getattr(seen, name) for name in same}, "outcome": seen.outcome.value,
        "last_phase": seen.last_phase.value if seen.last_phase else None,
        "allocated_peak_bytes": seen.allocated_bytes, "reserved_peak_bytes": seen.reserved_bytes,
        **{column: max(found, default=None) for column, found in peaks.items()},
        "step_median_s": step_median_s(seen), "step_min_s": min(seen.step_s, default=None),
        "step_max_s": max(seen.step_s, default=None),
        "prefill_median_s": median(seen.prefill_s) if seen.prefill_s else None, "tokens_per_s": tokens_per_s(record),
        "first_loss": seen.losses[0] if seen.losses else None, "last_loss": seen.losses[-1] if seen.losses else None,
    }  # fmt: skip


def _predicted(comparison: Comparison) -> dict[str, object]:
    profile, verdict, sizes = comparison.profile, comparison.verdict, comparison.predicted
    on_card = sizes.device_bytes is not None and profile is not None
    return {
        **{f"predicted_{name}": size for name, size in sizes._asdict().items()},
        "predicted_device_low_bytes": profile.device_low_bytes if profile and on_card else None,
        "predicted_device_high_bytes": profile.device_high_bytes if profile and on_card else None,
        "predicted_peak_phase": profile.peak_phase.value if profile else None,
        "verdict": verdict.fit.value if verdict else None,
        "headroom_bytes": verdict.headroom_bytes if verdict else None,
        **{f"{name}_error": error for name, error in comparison.errors._asdict().items()},
        "prediction_note": comparison.note,
    }


def _place(record: RunRecord) -> dict[str, object]:
    place = record.environment
    same = ("device", "product", "memory_bytes", "multiprocessors", "driver", "threads", "platform", "alloc_conf",
            "started_at")  # fmt: skip
    return {
        **{name: getattr(place, name) for name in same},
        "compute_capability": ".".join(map(str, place.compute_capability)) if place.compute_capability else None,
        **{f"{library}_version": place.versions.get(library) for library in LIBRARIES},
    }
