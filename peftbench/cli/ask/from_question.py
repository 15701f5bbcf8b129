"""--from: the recipe that another tool's files ask for, and what was typed over it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from peftbench.base.errors import CatalogError, SpecError
from peftbench.decide.recipe import METHOD_OPTIONS, recipe_options
from peftbench.recipes.reading import read_files
from peftbench.recipes.settings import Reading

if TYPE_CHECKING:
    from peftbench.catalog.models import NamedConfig
    from peftbench.inputs.recipe.training import TrainingSpec

_QUANTIZATION = ("quant_type", "blocksize", "double_quant", "compute_dtype", "upcast_unquantized", "upcast_norms")


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
    from peftbench.catalog.models import find_config, list_models

    if given["model"]:
        return find_config(given["model"])
    if not reading.model:
        raise SpecError(f"the {reading.tool} file names no model.", "Name it: --model 8b.")
    try:
        return find_config(reading.model)
    except CatalogError as error:
        copied = reading.model.rpartition("/")[2].lower()  # a copy under another account has the same shapes
        if copied in {model.id.lower().rpartition("/")[2] for model in list_models()}:
            return find_config(copied)
        what = f"the {reading.tool} file trains a model that cannot be found: {error.what}"
        raise CatalogError(what, "Name it as the catalogue or its config.json does: --model 8b.") from None


def recipe_with_files(
    reading: Reading, options: dict[str, Any], given: dict[str, Any], build: Callable[..., Any]
) -> Any:
    """The recipe of the files, with what was typed in place of theirs."""
    recipe = reading.recipe
    typed = {name: value for name, value in options.items() if value is not None}
    method = given["method"][0] if given["method"] else recipe.method
    if not typed and method == recipe.method:
        return (recipe,)
    (built,) = build((method,), {**_flat(recipe, method), **typed})
    return (_with_parts(built, recipe, typed),)


def _with_parts(built: TrainingSpec, recipe: TrainingSpec, typed: dict[str, Any]) -> TrainingSpec:
    """Adapter and quantization as they were read, where nothing was typed that changes them.

    An option cannot say PEFT's own targets for LoRA, so these are put back.
    """
    if built.method == recipe.method and not typed.keys() & METHOD_OPTIONS:
        return replace(built, adapter=recipe.adapter, quantization=recipe.quantization)
    same = built.adapter and recipe.adapter and built.adapter.peft_type == recipe.adapter.peft_type
    if same and built.adapter and recipe.adapter and recipe.adapter.target_modules is None:
        targets = built.adapter.target_modules if "target_modules" in typed else None
        return replace(built, adapter=replace(built.adapter, target_modules=targets))
    return built


def _flat(recipe: TrainingSpec, method: str) -> dict[str, Any]:
    """The recipe as options, without those that another method does not have."""
    found = {name: value for name, value in recipe_options(recipe).items() if value is not None}
    found["adapter_options"] = dict(recipe.adapter.options) if recipe.adapter else {}
    for name in ("task", "peft_type", *(["adapter_options"] if not found["adapter_options"] else [])):
        found.pop(name, None)
    if method == recipe.method:
        return found
    plain = (method.removeprefix("q"), recipe.method.removeprefix("q"))
    dropped = set(_QUANTIZATION) if plain[0] == plain[1] and method != "full" else METHOD_OPTIONS
    return {name: value for name, value in found.items() if name not in dropped}
