"""One thing to measure: a model's config.json, a recipe, and how many steps of it to run on which kind of device."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from peftbench.base.codec import Count, Within, check_fields, from_json
from peftbench.base.errors import SpecError
from peftbench.base.units import LONGEST_S, SHORTEST_S
from peftbench.base.visible import written
from peftbench.inputs.recipe import InferenceSpec, TrainingSpec
from peftbench.inputs.recipe.parallelism import check_one_gpu

DeviceType = Literal["cuda", "cpu"]
TIMEOUT_S = 3600.0
"""The most that one case may take, where nothing else is asked."""
_TimeLimit = Annotated[float, Within(SHORTEST_S, LONGEST_S)]
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
    steps: Annotated[int, Within(1, 1_000_000)] = 5
    """Timed steps, or timed generations."""
    warmup_steps: Annotated[int, Within(TRACKED_STEPS, 1_000_000)] = TRACKED_STEPS
    """Steps before those, whose time does not count; their memory does. Optimizer states are made in the first step and
    all there in the second."""
    learning_rate: Annotated[float, Within(0, 100)] = 1e-3
    seed: Count = 0
    device: DeviceType = "cuda"
    memory_limit_bytes: Annotated[int, Within(1)] | None = None
    """What the child may take of the card, or of memory on a CPU; None: all there is."""

    def __post_init__(self) -> None:
        check_fields(self)
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


def time_limit(timeout_s: object, otherwise_s: float) -> float:
    """The seconds that were passed in Python, or else these. Raises SpecError."""
    limit: float = otherwise_s if timeout_s is None else from_json(_TimeLimit, timeout_s, "timeout_s")
    return limit


def case_to_json(case: Case) -> dict[str, Any]:
    """Plain JSON values; the config as an object, so that a line of results can be read."""
    return {**asdict(case), "config": json.loads(case.config), "task": case.task}


def case_from_json(value: object) -> Case:
    """The inverse of case_to_json; raises SpecError for anything else."""
    given = object_with(("task", "recipe", "config"), value, "case")
    given["recipe"] = recipe_from_json(given.pop("task"), given["recipe"])
    given["config"] = config_text(given["config"])
    case: Case = from_json(Case, given, "case")
    return case


def config_text(value: object) -> str:
    """The config.json of a model as text with sorted keys; raises SpecError for what is no object."""
    return json.dumps(from_json(Mapping[str, object], value, "config"), sort_keys=True)


def object_with(needed: Iterable[str], value: object, where: str) -> dict[str, Any]:
    """A copy of an object that has these fields; raises SpecError that begins with `where`."""
    if not isinstance(value, Mapping):
        raise SpecError(f"{where} must be an object, not {written(value)}.")
    for name in needed:
        if name not in value:
            raise SpecError(f"{where} lacks the field {name!r}.")
    return dict(value)


def recipe_from_json(task: object, value: object) -> TrainingSpec | InferenceSpec:
    """The recipe of a task, "training" or "inference", from what dataclasses.asdict made of it; raises SpecError."""
    kind = from_json(Literal["training", "inference"], task, "task")
    recipe: TrainingSpec | InferenceSpec = from_json(TrainingSpec if kind == "training" else InferenceSpec, value, kind)
    return recipe
