"""From a suite to the cases that are run: its options become recipes, in the words and with the defaults of `plan`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product
from typing import Any, NamedTuple

from peftbench.base.errors import SpecError, located
from peftbench.base.plain import line_of
from peftbench.catalog.models import NamedConfig, find_config
from peftbench.decide.card import settle
from peftbench.decide.from_options import check_values, inference_requests, training_recipes, within_positions
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.inputs.case import Case, DeviceType
from peftbench.inputs.recipe import InferenceSpec, TrainingSpec
from peftbench.inputs.suite import Suite

DEFAULT_METHOD = "lora"


class SuiteCase(NamedTuple):
    """A case, and what had to change for it to run on the card."""

    case: Case
    notes: tuple[str, ...]
    grows: str | None = None
    """The option that is raised until the case runs out of memory."""


def cases_of(suite: Suite, gpu: GpuSpec | None = None, device: DeviceType | None = None) -> tuple[SuiteCase, ...]:
    """Every case with every combination of the sweep. `gpu` is the card that they are to run on.

    Raises SpecError or CatalogError, naming the case, for a recipe that cannot be.
    """
    model, place = config_of(suite), device or suite.device
    _check_options(suite)
    return tuple(_case(suite, model, id, options, gpu, place) for id, options in combinations(suite))


def combinations(suite: Suite) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every case with every combination of the sweep: its name with what is swept, and its options."""
    for (case, options), values in product(suite.cases.items(), product(*suite.sweep.values())):
        swept = dict(zip(suite.sweep, values, strict=True))
        name = " ".join((case, *(f"{option}={value}" for option, value in swept.items())))
        yield name, {**suite.base, **options, **swept}


def config_of(suite: Suite) -> NamedConfig:
    """The model that a suite names, or the config that it holds. Raises CatalogError."""
    if isinstance(suite.model, str):
        return find_config(suite.model)
    return NamedConfig(suite.model, f"{suite.name}'s model", f"suite {suite.name}")


def _check_options(suite: Suite) -> None:
    """Raise SpecError, with its line, for an option that there is not, and for a value that one cannot have."""
    held = {"base": suite.base, **{f"cases.{case}": options for case, options in suite.cases.items()}}
    given = [(place, values, name, value) for place, values in held.items() for name, value in values.items()]
    given += [("sweep", suite.sweep, name, value) for name, values in suite.sweep.items() for value in values]
    for place, values, name, value in given:
        line = line_of(values, name)
        with located(f"{suite.path}{f', line {line}' if line else ''}: {place}.{name}", hint="Correct it there."):
            if name != "method":
                check_values({name: value})


def _case(
    suite: Suite, model: NamedConfig, id: str, options: Mapping[str, Any], gpu: GpuSpec | None, device: DeviceType
) -> SuiteCase:
    with located(f"suite {suite.name}, case {id!r}"):
        recipe, notes = settle(model.other, _recipe(suite, model, options), gpu)
        case = Case(
            id=id, model=model.name, config=json.dumps(model.config, sort_keys=True), recipe=recipe, steps=suite.steps,
            warmup_steps=suite.warmup_steps, learning_rate=suite.learning_rate, seed=suite.seed, device=device,
        )  # fmt: skip
        if suite.largest is not None and not hasattr(recipe, suite.largest):
            raise SpecError(f"{case.task} has no {suite.largest} to be largest.", "Choose another.")
        return SuiteCase(case, notes, suite.largest)


def _recipe(suite: Suite, model: NamedConfig, given: Mapping[str, Any]) -> TrainingSpec | InferenceSpec:
    options = dict(given)
    method = options.pop("method", DEFAULT_METHOD)
    if not isinstance(method, str):
        raise SpecError(f"method must be a word, not {method!r}.", "As in method: qlora.")
    options = within_positions(model.other, suite.kind, (method,), options)
    make = training_recipes if suite.kind == "training" else inference_requests
    return make((method,), options)[0]


def grown(case: Case, option: str, value: int) -> Case:
    """The case with another value of the option that is searched."""
    recipe = replace(case.recipe, **{option: value})  # type: ignore[arg-type]
    return replace(case, recipe=recipe, id=f"{case.id} {option}={value}")
