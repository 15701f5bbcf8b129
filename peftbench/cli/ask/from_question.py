"""--from: the recipe that another tool's files ask for, and what was typed over it."""

from __future__ import annotations

from typing import Any

from peftbench.base.errors import CatalogError, SpecError
from peftbench.catalog.checkpoints.entry import find_entry
from peftbench.catalog.models import NamedConfig, find_config
from peftbench.decide.from_options import training_recipes
from peftbench.inputs.recipe import TrainingSpec
from peftbench.recipes.reading import read_files
from peftbench.recipes.settings import Reading


def read_question(given: dict[str, Any]) -> Reading:
    """What the files say; raises SpecError for a question that they cannot be part of."""
    if given["task"] == "inference":
        raise SpecError("--from reads how a model is trained.", "Leave out --task inference.")
    if given["adapter_config"]:
        raise SpecError("--adapter-config is one more file.", "Write it as --from FILE --from adapter_config.json.")
    if len(given["method"]) > 1:
        raise SpecError("a configuration is one method.", "Name one --method, or none.")
    return read_files(given["from_files"])


def named_model(given: dict[str, Any], reading: Reading) -> NamedConfig:
    """The model that was typed, or else that of the files."""
    if given["model"]:
        return find_config(given["model"])
    if not reading.model:
        raise SpecError(f"the {reading.tool} file names no model.", "Name it: --model 8b.")
    try:
        return find_config(reading.model)
    except CatalogError as error:
        copied = reading.model.rpartition("/")[2]  # a copy under another account has the same shapes
        if find_entry(copied):
            return find_config(copied)
        what = f"the {reading.tool} file trains a model that cannot be found: {error.what}"
        raise CatalogError(what, "Name it as the catalogue or its config.json does: --model 8b.") from None


def recipe_with_files(
    recipe: TrainingSpec, methods: tuple[str, ...], options: dict[str, Any]
) -> tuple[TrainingSpec, ...]:
    """The recipe of the files, with what was typed in place of theirs."""
    method = methods[0] if methods else recipe.method
    if not options and method == recipe.method:
        return (recipe,)  # also of a type that has no formula
    return training_recipes((method,), options, recipe)
