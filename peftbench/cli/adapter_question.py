"""--adapter-config: the recipe of an adapter that PEFT has written down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from peftbench.catalog.adapter_file import adapter_of, read_adapter_file
from peftbench.errors import NoFormula, SpecError
from peftbench.spec.adapter import AdapterSpec

if TYPE_CHECKING:
    from peftbench.spec.model import ModelSpec, OtherModel

_OWN = (
    "r", "target_modules", "use_dora", "use_rslora", "lora_dropout", "num_virtual_tokens", "adapter_options",
)  # fmt: skip
"""Options that the file sets."""


def recipe_with_adapter(
    model: ModelSpec | OtherModel, options: dict[str, Any], given: dict[str, Any], build: Callable[..., Any]
) -> Any:
    """One recipe with the adapter of the file. Raises NoFormula, unless a dry run will tell."""
    from peftbench.decide.from_options import within_positions
    from peftbench.estimate.adapter_methods import METHODS

    for name in _OWN:
        if options.get(name) is not None:
            flag = "adapter-option" if name == "adapter_options" else name.replace("_", "-")
            raise SpecError(f"--{flag} and --adapter-config exclude each other.", "Change the file instead.")
    config = read_adapter_file(given["adapter_config"])
    peft_type = str(config["peft_type"]).lower()
    base = "qlora" if _quantized(given["method"], peft_type) else "lora"
    (recipe,) = build((base,), within_positions(model, given["task"], (base,), options))
    try:
        known = METHODS[peft_type].options if peft_type in METHODS else {}
        adapter = adapter_of(config, known)
    except NoFormula:
        if not given["dry_run"]:
            raise
        adapter = AdapterSpec(peft_type=peft_type)
    return (replace(recipe, adapter=replace(adapter, dtype=recipe.adapter.dtype) if recipe.adapter else None),)


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
