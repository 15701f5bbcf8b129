"""A recipe as flat options under their command-line names, both ways: what JSON shows, what an option changes."""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

from peftbench.estimate.peft_types.table import METHODS, Method
from peftbench.inputs.recipe import (
    ALL_LINEAR,
    AdapterSpec,
    DType,
    InferenceSpec,
    ParallelismSpec,
    QuantizationSpec,
    TrainingSpec,
)
from peftbench.inputs.recipe.option import Option, Value, flag, options_of
from peftbench.inputs.schemes.scheme import OPTIONS as SCHEME_OPTIONS

Options = dict[str, Value]
Recipe = TypeVar("Recipe", TrainingSpec, InferenceSpec)

PARTS = {"parallelism": ParallelismSpec, "adapter": AdapterSpec, "quantization": QuantizationSpec}
"""Specs within a recipe, by the field that holds them."""

SPECS = (TrainingSpec, InferenceSpec, *PARTS.values())
"""Every class that declares options."""

LORA = AdapterSpec(peft_type="lora", r=16, target_modules=(ALL_LINEAR,))
"""What "lora" stands for: every linear layer, as the QLoRA paper recommends, with PEFT's float32 adapters."""


def quantization_for(dtype: DType, **given: Any) -> QuantizationSpec:
    """What "qlora" stands for: NF4 with double quantization, computing in the 16-bit type of the recipe, or what is
    given instead."""
    compute = DType.BFLOAT16 if dtype is DType.FLOAT32 else dtype
    return QuantizationSpec(**{"compute_dtype": compute, **given})


def names_of(*specs: type) -> tuple[str, ...]:
    """Flat names of every option of these specs."""
    return tuple(option.name for spec in specs for option in options_of(spec))


def type_has(option: str, method: Method) -> bool:
    """Whether an option of adapters means something for a PEFT type."""
    if option in ("r", "target_modules"):
        return (method.rank if option == "r" else method.each) is not None
    return option in ("peft_type", "adapter_dtype", "adapter_options") or option in method.options


# ── to options ──────────────────────────────────────────────────────────────────────────────────────────


def recipe_options(recipe: TrainingSpec | InferenceSpec) -> Options:
    """Every option of a recipe; None where one does not apply."""
    return {
        "task": "training" if isinstance(recipe, TrainingSpec) else "inference",
        **_flat(recipe),
        **_flat(recipe.parallelism),
        **_adapter_options(recipe.adapter),
        **_quantization_options(recipe.quantization),
    }


def _flat(spec: Any) -> Options:
    return {option.name: option.flat(getattr(spec, option.field)) for option in options_of(spec.__class__)}


def _adapter_options(adapter: AdapterSpec | None) -> Options:
    """The adapter with the defaults of its type filled in, because they are what is priced."""
    if adapter is None:
        return dict.fromkeys(names_of(AdapterSpec))
    method = METHODS.get(adapter.peft_type, Method())  # a type without formula has what was given, no more
    own: Options = {name: value if type_has(name, method) else None for name, value in _flat(adapter).items()}
    own |= {name: method.options[name] for name in own if own[name] is None and name in method.options}
    options = {**method.options, **dict(adapter.options)}
    default_r = options.pop(method.rank, None) if method.rank else None
    rest: Any = {name: value for name, value in options.items() if value is not None and name not in own}
    held = {"num_virtual_tokens": options.get("num_virtual_tokens"), "adapter_options": rest}
    return {**own, "r": adapter.r or default_r or None, **held}


def _quantization_options(quantization: QuantizationSpec | None) -> Options:
    if quantization is None:
        return dict.fromkeys(names_of(QuantizationSpec))
    unused = {*SCHEME_OPTIONS} - {*quantization.scheme.options}
    return {name: None if name in unused else value for name, value in _flat(quantization).items()}


# ── from options ────────────────────────────────────────────────────────────────────────────────────────


def value_of(recipe: TrainingSpec | InferenceSpec, name: str) -> Value:
    """The value of one option; None where the recipe does not have the part that it belongs to."""
    kind: Any = type(recipe)
    part, option = _home(kind, name)
    whole: Any = recipe if part is None else getattr(recipe, part)
    return None if whole is None else option.flat(getattr(whole, option.field))


@lru_cache(maxsize=128)
def _home(spec: Any, name: str) -> tuple[str | None, Option]:
    """Which part of a recipe an option is of, None for the recipe itself, and its declaration."""
    parts: Iterable[tuple[str | None, type]] = ((None, spec), *PARTS.items())
    return next((part, option) for part, each in parts for option in options_of(each) if option.name == name)


def parsed(spec: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a spec for those of its options that are given; not for names with values that a field holds."""
    return {
        option.field: option.parse(given[option.name])
        for option in options_of(spec)
        if option.name in given and option.kind is not dict and not option.held
    }


# ── what differs ────────────────────────────────────────────────────────────────────────────────────────


class Difference(NamedTuple):
    """One option that two recipes set differently."""

    name: str
    before: Value
    after: Value

    @property
    def arguments(self) -> tuple[str, ...]:
        """What to type to get `after`; nothing for what no longer applies."""
        return words_of(self.name, self.after)

    @property
    def option(self) -> str:
        """As typed: "--micro-batch-size"."""
        return flag(self.name)


def differences(before: TrainingSpec, after: TrainingSpec) -> tuple[Difference, ...]:
    """The options that differ between two recipes of one method."""
    old, new = recipe_options(before), recipe_options(after)
    return tuple(Difference(name, old[name], new[name]) for name in old if old[name] != new[name])


def words_of(name: str, value: Value) -> tuple[str, ...]:
    """An option as it is typed, unquoted: ("--r", "8"); nothing for None, which says that it does not apply."""
    if isinstance(value, bool):
        return (flag(name) if value else flag(name).replace("--", "--no-", 1),)
    if isinstance(value, dict):
        return tuple(word for each, setting in value.items() for word in (flag(name), f"{each}={setting}"))
    if value is None:
        return ()
    return (flag(name), ",".join(value) if isinstance(value, list) else str(value))


def can_be_typed(name: str, value: Value) -> bool:
    """Whether the command line has words for this value of an option."""
    if value is None or name == "task":
        return False
    option = next(option for spec in SPECS for option in options_of(spec) if option.name == name)
    return option.typed and not (value is False and option.alone)
