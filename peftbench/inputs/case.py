"""One thing to measure: a model's config.json, a recipe, and how many steps of it to run on which kind of device."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from peftbench.base.codec import from_json
from peftbench.base.errors import SpecError
from peftbench.inputs.recipe import InferenceSpec, TrainingSpec
from peftbench.inputs.recipe.parallelism import check_one_gpu

DEVICES = ("cuda", "cpu")
TIMEOUT_S = 3600.0
"""The most that one case may take, where nothing else is asked."""
TRACKED_STEPS = 2
"""Optimizer states exist from the second step on, so the first two show every size a step can have."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A training or generation run that is short, complete and repeatable. It holds no prediction."""

    id: str
    """Its name in the suite, with the values of the sweep: "qlora sequence_length=1024"."""
    model: str
    """What the suite calls the model, for people; only `config` is run."""
    config: str
    """The config.json of the model, as text with sorted keys."""
    recipe: TrainingSpec | InferenceSpec
    steps: int = 5
    """Timed steps, or timed generations."""
    warmup_steps: int = TRACKED_STEPS
    """Steps before those, whose time does not count; their memory does."""
    learning_rate: float = 1e-3
    seed: int = 0
    device: str = "cuda"
    memory_limit_bytes: int | None = None
    """What the child may take of the card, or of memory on a CPU; None: all there is."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise SpecError(f"steps must be at least 1 (got {self.steps}).")
        if self.warmup_steps < TRACKED_STEPS:
            why = f"warmup_steps must be at least {TRACKED_STEPS} (got {self.warmup_steps})."
            raise SpecError(why, "Optimizer states are made in the first step and all there in the second.")
        if not 0 < self.learning_rate < 100:
            raise SpecError(f"learning_rate cannot be {self.learning_rate}.", "Write it as in learning_rate: 0.001")
        if self.device not in DEVICES:
            raise SpecError(f"device cannot be {self.device!r}.", f"Choose one of {', '.join(DEVICES)}.")
        check_one_gpu(self.recipe.parallelism, "a run")

    @property
    def task(self) -> str:
        """ "training" or "inference"."""
        return "training" if isinstance(self.recipe, TrainingSpec) else "inference"

    @property
    def key(self) -> str:
        """Equal for cases that would run the same, whatever they are called: 16 hexadecimal digits."""
        return fingerprint({name: value for name, value in case_to_json(self).items() if name not in ("id", "model")})


def fingerprint(value: Mapping[str, Any]) -> str:
    """16 hexadecimal digits that are equal for equal JSON values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def case_to_json(case: Case) -> dict[str, Any]:
    """Plain JSON values; the config as an object, so that a line of results can be read."""
    return {**asdict(case), "config": json.loads(case.config), "task": case.task}


def case_from_json(value: Mapping[str, Any]) -> Case:
    """The inverse of case_to_json; raises SpecError for what cannot be, KeyError and TypeError for other JSON."""
    given = dict(value)
    given["recipe"] = recipe_from_json(given.pop("task"), given["recipe"])
    given["config"] = json.dumps(given["config"], sort_keys=True)
    case: Case = from_json(Case, given, "case")
    return case


def recipe_from_json(task: str, value: object) -> TrainingSpec | InferenceSpec:
    """The recipe of a task, "training" or "inference", from what dataclasses.asdict made of it; raises SpecError."""
    kind = TrainingSpec if task == "training" else InferenceSpec
    recipe: TrainingSpec | InferenceSpec = from_json(kind, value, task)
    return recipe
