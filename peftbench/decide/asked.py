"""A recipe as it was asked for, and what to type to get another one: advice changes options, never recipes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from peftbench.base.errors import SpecError
from peftbench.decide.card import settle_training
from peftbench.decide.from_options import Given, effective, training_recipes
from peftbench.decide.recipe import Options, can_be_typed, recipe_options, words_of
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.inputs.model.spec import ModelSpec, OtherModel
from peftbench.inputs.recipe import TrainingSpec

Build = Callable[[str, Given], TrainingSpec]
"""The recipe of a method with flat options, as the command line makes it. Raises SpecError for what cannot be typed."""

METHOD = "method"
_ROUNDS = 4
"""An option decides what others are by default, as the count of GPUs that of nodes."""


class Asked(NamedTuple):
    """One method, the options that were typed, and what makes a recipe of both."""

    method: str
    options: Given
    build: Build

    def typed(self, changes: Given) -> tuple[str, Options]:
        """The method, and all options to type with it, where these are typed as well."""
        options = {name: value for name, value in {**self.options, **changes}.items() if name != METHOD}
        method: Any = changes.get(METHOD, self.method)
        return method, effective(method, options)

    def recipe(self, changes: Given, model: ModelSpec | OtherModel, gpu: GpuSpec | None) -> TrainingSpec:
        """What the question with these options leads to on the card; raises SpecError where they cannot be."""
        return settle_training(model, self.build(*self.typed(changes)), gpu)[0]

    def leading_to(
        self, recipe: TrainingSpec, model: ModelSpec | OtherModel, gpu: GpuSpec | None, first: Given | None = None
    ) -> Options | None:
        """What to type to get this recipe: read back, and completed until it does. None where nothing leads there.

        `first` are options to try before any others.
        """
        wanted = recipe_options(recipe)
        typed: Options = dict(first or {})
        if recipe.method != self.method:
            typed[METHOD] = recipe.method
        for _ in range(_ROUNDS):
            try:
                found = recipe_options(self.recipe(typed, model, gpu))
            except SpecError:
                return None
            missing = {name: value for name, value in wanted.items() if found[name] != value}
            if not missing:
                return in_order(typed)
            if "gpus" in missing:
                missing.pop("nodes", None)  # that the count decides, unless it is typed
            typed |= {name: value for name, value in missing.items() if can_be_typed(name, value)}
        return None


def from_options(method: str, options: Given) -> TrainingSpec:
    """A recipe of options alone: what a Build is where there are no files."""
    return training_recipes((method,), options)[0]


def asked_over(recipe: TrainingSpec) -> Asked:
    """A recipe that nobody typed: what is typed goes over it."""
    return Asked(recipe.method, {}, lambda method, options: training_recipes((method,), options, recipe)[0])


def in_order(changes: Given) -> Options:
    """The method first, then the others as answers show them."""
    order = [METHOD, *recipe_options(TrainingSpec())]
    return {name: changes[name] for name in sorted(changes, key=order.index)}


def arguments_of(changes: Given) -> tuple[str, ...]:
    """The words of a command line for these options."""
    return tuple(word for name, value in changes.items() for word in words_of(name, value))
