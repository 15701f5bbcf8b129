"""A recipe as flat options under their command-line names, both ways: what JSON shows, what an option changes."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
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
from peftbench.inputs.recipe.parallelism import usual_nodes
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


METHOD_OPTIONS = frozenset(names_of(AdapterSpec, QuantizationSpec))
"""Options that --method sets."""


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


def changed(recipe: Recipe, name: str, value: Any) -> Recipe:
    """The recipe with another value of one option; raises SpecError for one that cannot be.

    An option of a part that the recipe does not have changes nothing.
    """
    kind: Any = type(recipe)
    part, option = _home(kind, name)
    if part is None:
        return replace(recipe, **{option.field: option.parse(value)})
    whole = getattr(recipe, part)
    given: Any = {part: whole and replace(whole, **{option.field: option.parse(value)})}
    return replace(recipe, **given)


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

    option: str
    """As typed: "--micro-batch-size"."""
    before: Value
    after: Value

    @property
    def arguments(self) -> tuple[str, ...]:
        """What to type to get `after`; nothing for what no longer applies."""
        if isinstance(self.after, bool):
            return (self.option if self.after else self.option.replace("--", "--no-", 1),)
        if isinstance(self.after, dict):
            pairs = ((self.option, f"{name}={value}") for name, value in self.after.items())
            return tuple(word for pair in pairs for word in pair)
        if self.after is None:
            return ()
        return (self.option, ",".join(self.after) if isinstance(self.after, list) else str(self.after))


def differences(before: TrainingSpec, after: TrainingSpec) -> tuple[Difference, ...]:
    """What to type to turn one recipe into the other; --method stands for the options that come with it."""
    old, new = recipe_options(before), recipe_options(after)
    if old["gpus"] != new["gpus"]:
        old["nodes"] = usual_nodes(after.parallelism.gpus)  # what --gpus alone would mean
    changed = [name for name in old if old[name] != new[name]]
    if before.method == after.method:
        return tuple(Difference(flag(name), old[name], new[name]) for name in changed)
    method = Difference("--method", before.method, after.method)
    rest = (name for name in changed if name not in METHOD_OPTIONS)
    return (method, *(Difference(flag(name), old[name], new[name]) for name in rest))
