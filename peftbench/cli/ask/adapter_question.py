"""--adapter-config: the recipe of an adapter that PEFT has written down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from peftbench.base.errors import NoFormula, SpecError, located
from peftbench.catalog.adapter_file import read_adapter_file
from peftbench.decide.adapter_config import adapter_of, check_model, unknown_fields
from peftbench.decide.from_options import within_positions
from peftbench.inputs.model.spec import ModelSpec, OtherModel
from peftbench.inputs.recipe import AdapterSpec
from peftbench.inputs.recipe.option import options_of

_OWN = tuple(option for option in options_of(AdapterSpec) if option.name != "adapter_dtype")
"""Options that the file sets."""


def recipe_with_adapter(
    model: ModelSpec | OtherModel, methods: tuple[str, ...], options: dict[str, Any], given: dict[str, Any],
    build: Callable[..., Any],
) -> Any:  # fmt: skip
    """One recipe with the adapter of the file. Raises NoFormula, unless a dry run will tell."""
    for option in _OWN:
        if option.name in options:
            raise SpecError(f"{option.flag} and --adapter-config exclude each other.", "Change the file instead.")
    adapter, known = _read(given["adapter_config"])
    if not (known or given["dry_run"]):
        _spec_of(given["adapter_config"])  # says why
    if known:
        check_model(read_adapter_file(given["adapter_config"]), model)
    peft_type = adapter.peft_type
    base = "qlora" if _quantized(methods, peft_type) else "lora"
    held = {name: value for name, value in adapter.options if name == "num_virtual_tokens"}
    within = within_positions(model, given["task"], (peft_type if known else base,), {**options, **held})
    (recipe,) = build((base,), {name: value for name, value in within.items() if name not in held})
    return (replace(recipe, adapter=replace(adapter, dtype=recipe.adapter.dtype) if recipe.adapter else None),)


def has_formula(given: dict[str, Any]) -> bool:
    """Whether the adapter is priced by formula: one of options is, one of a file need not be."""
    return not given["adapter_config"] or _read(given["adapter_config"])[1]


def _read(path: str) -> tuple[AdapterSpec, bool]:
    """The adapter of the file, or no more than its type where there is no formula for the rest."""
    try:
        return _spec_of(path), True
    except NoFormula:
        return AdapterSpec(peft_type=str(read_adapter_file(path)["peft_type"]).lower()), False


def _spec_of(path: str) -> AdapterSpec:
    config = read_adapter_file(path)
    with located(path):
        return adapter_of(config)


def notes_on(path: str) -> tuple[str, ...]:
    """What is to be known of the file."""
    return tuple(unknown_fields(read_adapter_file(path)))


def _quantized(methods: tuple[str, ...], peft_type: str) -> bool:
    """Whether the base is quantized: --method q<type>; without --method it is not."""
    if len(methods) > 1:
        raise SpecError("an adapter_config.json is one method.", "Name one --method, or none.")
    plain = methods[0].lower().replace("-", "_") if methods else peft_type
    if plain not in (peft_type, f"q{peft_type}"):
        raise SpecError(
            f"the adapter_config.json is of type {peft_type}, not {plain}.",
            f"Leave out --method, or use --method q{peft_type.replace('_', '-')} for a quantized base.",
        )
    return plain != peft_type
