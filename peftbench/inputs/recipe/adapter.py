"""A PEFT adapter: its type, targets and sizes, in the words of PEFT's configuration classes."""

from __future__ import annotations

from dataclasses import dataclass

from peftbench.inputs.recipe.dtype import DType

ALL_LINEAR = "all-linear"


@dataclass(frozen=True, kw_only=True)
class AdapterSpec:
    """One adapter on every targeted module.

    `options` holds what only one PEFT type has, under PEFT's own names and sorted, so that equal adapters compare
    equal: (("num_virtual_tokens", 20),). Values that a type leaves out are PEFT's defaults.
    """

    peft_type: str = "lora"
    """PEFT's PeftType in lower case: "lora", "ia3", "prompt_tuning" …"""
    r: int | None = None
    """Rank, where the type has one."""
    target_modules: tuple[str, ...] | None = None
    """Module names, ("all-linear",), or None for PEFT's default targets of the architecture."""
    use_dora: bool = False
    use_rslora: bool = False
    dtype: DType = DType.FLOAT32
    """float32 is PEFT's autocast_adapter_dtype=True."""
    dropout: float = 0.0
    """lora_dropout: keeps a mask and a copy of the input for each target."""
    options: tuple[tuple[str, int | float | str | bool], ...] = ()
