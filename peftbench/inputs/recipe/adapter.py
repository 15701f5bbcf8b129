"""A PEFT adapter: its type, targets and sizes, in the words of PEFT's configuration classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from peftbench.base.errors import SpecError
from peftbench.base.visible import written
from peftbench.inputs.recipe.dtype import DType
from peftbench.inputs.recipe.option import check, declared, option, options_of

ALL_LINEAR = "all-linear"
NO_FEEDFORWARD = "none"
"""IA3's feedforward_modules where it scales the output of every module."""


def left_out_note(names: Iterable[str], model_type: str) -> str:
    """The note on an all-linear without these modules."""
    left = ", ".join(names)
    return f"all-linear without {left}, which PEFT cannot adapt in {model_type}: a run that names them stops."


def _kind(adapter: AdapterSpec) -> str:
    name = "LoRA" if adapter.peft_type == "lora" else adapter.peft_type
    return f"{name}{' DoRA' if adapter.use_dora else ''}{' rsLoRA' if adapter.use_rslora else ''}"


def _alpha(adapter: AdapterSpec) -> str:
    return "" if adapter.alpha is None else f"alpha {adapter.alpha}"


@dataclass(frozen=True, kw_only=True)
class AdapterSpec:
    """One adapter on every targeted module.

    `target_modules` are names, ("all-linear",), or None for PEFT's default targets of the architecture. `options` holds
    what only one PEFT type has, under PEFT's own names and sorted, so that equal adapters compare equal:
    (("num_virtual_tokens", 20),). Values that a type leaves out are PEFT's defaults.
    """

    peft_type: str = option(
        "lora", "PEFT's PeftType in lower case: ia3, prompt_tuning …", typed=False, screen=_kind, column=26
    )
    r: int | None = option(
        None,
        "Rank of the adapter.",
        kind=int,
        least=1,
        default_text="16 for LoRA, else PEFT's",
        screen="r {}",
        column=27,
    )
    target_modules: tuple[str, ...] | None = option(
        None, "Modules to adapt: names separated by commas, or all-linear.", kind=tuple, choices=(ALL_LINEAR,),
        default_text="all-linear for LoRA, else PEFT's", screen="", column=28,
    )  # fmt: skip
    dtype: DType = option(
        DType.FLOAT32, "Dtype of the adapter's weights; PEFT's autocast_adapter_dtype is float32.",
        name="adapter_dtype", screen="", column=29,
    )  # fmt: skip
    use_dora: bool = option(False, "DoRA: train a magnitude for each output.", alone=True, screen="", column=30)
    use_rslora: bool = option(
        False, "rsLoRA: scale by the root of the rank; costs no memory.", alone=True, screen="", column=31
    )
    dropout: float = option(
        0.0, "Keeps a mask and a copy of the input for each target.", name="lora_dropout", least=0, below=1,
        screen="dropout {}", usual="", column=32,
    )  # fmt: skip
    alpha: int | None = option(
        None, "Scale of the adapter: its output is multiplied by lora_alpha / r; costs no memory.", name="lora_alpha",
        kind=int, least=1, default_text="PEFT's, 8", screen=_alpha, column=92,
    )  # fmt: skip
    options: tuple[tuple[str, int | float | str | bool], ...] = option(
        (), "Another option of a PEFT type, under PEFT's name.", name="adapter_options", kind=dict, screen="",
        column=34,
        holds=(
            declared(
                20, "Length of a prompt or prefix.", name="num_virtual_tokens", least=1, held=True, screen="", column=33
            ),
        ),
    )  # fmt: skip

    def __post_init__(self) -> None:
        check(self)
        if self.options != ():
            object.__setattr__(self, "options", _sorted_options(self.options))

    @property
    def names_layers(self) -> bool:
        """Whether a target is a module of one layer: model.layers.0.self_attn.q_proj."""
        return any(part.isdigit() for name in self.target_modules or () for part in name.split("."))


*_HELD, _OTHERS = (option for option in options_of(AdapterSpec) if option.field == "options")


def _sorted_options(value: Any) -> tuple[tuple[str, Any], ...]:
    """Pairs of a name and a plain value, or a mapping of them, sorted. Raises SpecError."""
    pairs = value.items() if isinstance(value, Mapping) else value
    if isinstance(pairs, (str, bytes)) or not isinstance(pairs, Iterable):
        raise SpecError(f"options must be pairs of a name and a value, not {written(value)}.")
    pairs = [tuple(pair) if isinstance(pair, (list, tuple)) else (pair,) for pair in pairs]
    if not all(len(pair) == 2 and isinstance(pair[0], str) for pair in pairs):
        raise SpecError(f"options must be pairs of a name and a value, not {written(pairs)}.")
    found = _OTHERS.parse(dict(pairs))
    for held in _HELD:
        if held.name in found:
            held.check(found[held.name])
    return tuple(sorted(found.items()))


NAMED_AS_PEFT = tuple(
    option
    for option in options_of(AdapterSpec)
    if option.kind in (bool, int, float) and option.name != "r" and not option.held
)
"""Options that stand in PEFT's configuration as they are: same name, same value."""
