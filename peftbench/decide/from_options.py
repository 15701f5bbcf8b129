"""Turn names of methods and flat options into recipes, and refuse an option that none of the methods has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from peftbench.base.errors import SpecError, did_you_mean
from peftbench.base.visible import written
from peftbench.decide.recipe import LORA, SPECS, Recipe, names_of, parsed, quantization_for, type_has
from peftbench.estimate.peft_types.table import METHODS, NOT_DERIVED, Method
from peftbench.inputs.model.spec import ModelSpec, OtherModel
from peftbench.inputs.recipe import (
    ONE_GPU,
    AdapterSpec,
    DType,
    InferenceSpec,
    ParallelismSpec,
    QuantizationSpec,
    TrainingSpec,
)
from peftbench.inputs.recipe.inference import ADAPTER_KIND
from peftbench.inputs.recipe.option import flag, options_of
from peftbench.inputs.recipe.parallelism import LINKED, SHARDS_WEIGHTS, usual_nodes
from peftbench.inputs.schemes.scheme import OPTIONS as SCHEME_OPTIONS
from peftbench.inputs.schemes.scheme import scheme_of, schemes_with

COMPARED = ("full", "lora", "qlora")
"""The methods that are compared when none is named."""

_OF_TASK = {"training": names_of(TrainingSpec), "inference": (*names_of(InferenceSpec), ADAPTER_KIND.name)}
_ADAPTER = tuple(name for name in names_of(AdapterSpec) if name != "peft_type")  # that is --method
_QUANTIZATION = names_of(QuantizationSpec)

OPTIONS = tuple(dict.fromkeys((*sum(_OF_TASK.values(), ()), *names_of(ParallelismSpec), *_ADAPTER, *_QUANTIZATION)))
"""Every flat option, named as on the command line with underscores."""

_DECLARED = {option.name: option for spec in SPECS for option in options_of(spec)} | {ADAPTER_KIND.name: ADAPTER_KIND}

_SHARDING = {
    "sync_each_batch": ("fsdp", "fsdp-grad-op"), "loading": SHARDS_WEIGHTS, "offload_params": ("zero3",),
    "reduce_bucket_size": ("zero1", "zero2", "zero3"), "overlap_comm": ("zero1", "zero2"), "link": LINKED,
    "max_live_parameters": ("zero3",), "sub_group_size": ("zero3",),
}  # fmt: skip
"""Options that only some ways to share a model know of."""

Given = Mapping[str, Any]
"""Options that were given: those that are None were not."""


def training_recipes(
    methods: tuple[str, ...], options: Given, base: TrainingSpec | None = None
) -> tuple[TrainingSpec, ...]:
    """Build one recipe a method: the base, with those of the options that the method has in place of its own.

    Raises SpecError for an unknown method, and for an option that none of the methods has.
    """
    recipe = base or TrainingSpec()
    given = _checked(methods, options, "training", recipe.quantization)
    return tuple(dict.fromkeys(_recipe(method, given, recipe) for method in methods))


def inference_requests(methods: tuple[str, ...], options: Given) -> tuple[InferenceSpec, ...]:
    """Build one request a method, without those that come out equal; raises as training_recipes."""
    given = _checked(methods, options, "inference", None)
    return tuple(dict.fromkeys(_recipe(method, given, InferenceSpec()) for method in methods))


def within_positions(
    model: ModelSpec | OtherModel, task: str, methods: tuple[str, ...], options: Given
) -> dict[str, Any]:
    """Cut a default length to the positions of the model; lengths that were given stay as they are."""
    check_values({name: options.get(name) for name in ("new_tokens", "num_virtual_tokens")})
    name = "prompt_tokens" if task == "inference" else "sequence_length"
    new_tokens = options.get("new_tokens") or InferenceSpec.new_tokens
    most = model.max_position_embeddings - max(_virtual_tokens(method, options) for method in methods)
    most -= new_tokens if task == "inference" else 0
    default = InferenceSpec.prompt_tokens if task == "inference" else TrainingSpec.sequence_length
    if options.get(name) is None and 0 < most < default:
        return {**options, name: most}
    return dict(options)


def _virtual_tokens(method: str, options: Given) -> int:
    """Positions that a prompt or prefix takes, with PEFT's default length where none is given."""
    peft_type, _ = split_method(method)
    default: Any = METHODS[peft_type].options.get("num_virtual_tokens", 0) if peft_type else 0
    return options.get("num_virtual_tokens") or default if default else 0


def check_values(options: Given) -> None:
    """Raise SpecError for an option that there is not, and for a value that it cannot have."""
    for name, value in options.items():
        if name not in _DECLARED:
            raise SpecError(f"unknown option {written(name)}. {did_you_mean(str(name)[:60], OPTIONS)}".rstrip())
        if value is not None:
            _DECLARED[name].parse(value)


# ── methods ─────────────────────────────────────────────────────────────────────────────────────────────


def split_method(name: str) -> tuple[str | None, bool]:
    """Return PEFT's type (None for full) and whether the base is quantized: "qlora" is ("lora", True).

    Raises SpecError for a name that is not a method.
    """
    if not isinstance(name, str):
        raise SpecError(f"a method is a name, not {written(name)}.", "As in lora.")
    plain = name.strip().lower().replace("-", "_")
    if plain == "full":
        return None, False
    if plain in METHODS:
        return plain, False
    if plain.startswith("q") and plain[1:] in METHODS:
        return plain[1:], True
    raise _unknown_method(name[:40], plain)


def _unknown_method(name: str, plain: str) -> SpecError:
    known = (*COMPARED, *(peft_type for peft_type in METHODS if peft_type != "lora"))
    if plain == "qfull":
        what = "quantized weights cannot be trained: bitsandbytes has no gradient for them."
        return SpecError(what, "Use --method qlora: an adapter on quantized weights.")
    if plain in ("dora", "qdora"):
        return SpecError(f"{name} is an option of LoRA.", f"Use --method {plain[:-4]}lora --use-dora.")
    if plain in NOT_DERIVED:
        what = f"the size of a {plain} adapter is not modelled."
    else:
        what = f"unknown method {name!r}. {did_you_mean(name, known)}".rstrip()
    return SpecError(what, f"Choose one of {', '.join(known)}; with q in front for a quantized base.")


# ── which option belongs to what ────────────────────────────────────────────────────────────────────────


def _checked(methods: tuple[str, ...], options: Given, task: str, base: QuantizationSpec | None) -> Given:
    """The given options; each belongs to the task or to at least one of the methods."""
    given = {name: value for name, value in options.items() if value is not None}
    check_values(options)
    kinds = [split_method(method) for method in methods]
    quant_type = given.get("quant_type", (base or QuantizationSpec()).quant_type)
    for name in given:
        if name in _ADAPTER or name in _QUANTIZATION:
            if not any(_method_has(name, peft_type, quantized, quant_type) for peft_type, quantized in kinds):
                of_scheme = name in SCHEME_OPTIONS and any(quantized for _, quantized in kinds)
                what = f"--quant-type {quant_type}" if of_scheme else " or ".join(methods)
                raise SpecError(f"{flag(name)} has no effect with {what}.", _owner(name, quant_type))
        elif name not in (*_OF_TASK[task], *names_of(ParallelismSpec)):
            raise SpecError(f"{flag(name)} has no effect with --task {task}.", "Leave it out, or change the task.")
    for name in _OTHERS.parse(given.get("adapter_options", {})):
        _check_extra(name, methods, [METHODS[peft_type] for peft_type, _ in kinds if peft_type])
    if "adapter" in given and not any(peft_type for peft_type, _ in kinds):
        raise SpecError("--adapter has no effect with full.", "It belongs to --method lora, qlora ….")
    if given.get("adapter") == "none" and any(name in given for name in _ADAPTER):
        raise SpecError("--adapter none leaves no adapter to give options to.", "Use --adapter dynamic.")
    return given


def check_sharing(options: Given, recipes: Iterable[TrainingSpec | InferenceSpec]) -> None:
    """Raise SpecError for an option of sharding that changes none of the recipes, on the GPUs that they have."""
    for name, needs in _SHARDING.items():
        strategies = {recipe.parallelism.strategy for recipe in recipes}
        asked = options.get(name) not in (None, _DECLARED[name].default)
        if asked and not strategies & set(needs):
            shared = [f"--parallel {strategy}" for strategy in sorted(strategies) if strategy != "none"]
            what = f"{flag(name)} has no effect with {' or '.join(shared) or 'one GPU'}."
            raise SpecError(what, f"It belongs to --parallel {', '.join(needs)}.")


def _method_has(name: str, peft_type: str | None, quantized: bool, quant_type: str) -> bool:
    """Whether an option of adapters or of quantization can change a recipe of this method."""
    if name in _QUANTIZATION:
        return quantized and (name not in SCHEME_OPTIONS or name in scheme_of(quant_type).options)
    return peft_type is not None and type_has(name, METHODS[peft_type])


def effective(method: str, options: Given) -> dict[str, Any]:
    """Those of the options that can change a recipe of this method; a question about several methods has others."""
    peft_type, quantized = split_method(method)
    quant_type = options.get("quant_type") or QuantizationSpec().quant_type
    own = (*_ADAPTER, *_QUANTIZATION)
    found = {
        name: value for name, value in options.items()
        if name not in own or _method_has(name, peft_type, quantized, quant_type)
    }  # fmt: skip
    if "adapter_options" in found and peft_type:
        known = METHODS[peft_type].options
        found["adapter_options"] = {name: value for name, value in found["adapter_options"].items() if name in known}
    return found


def _owner(name: str, quant_type: str) -> str:
    """Where the option belongs, as a hint."""
    if name in SCHEME_OPTIONS and name not in scheme_of(quant_type).options:
        return f"It belongs to --quant-type {' or '.join(schemes_with(name))}."
    if name in _QUANTIZATION:
        return "It belongs to a quantized base: --method qlora."
    owners = [peft_type for peft_type, method in METHODS.items() if type_has(name, method)]
    return f"It belongs to --method {', '.join(owners[:6])}{' …' if len(owners) > 6 else ''}."


def _check_extra(name: str, methods: tuple[str, ...], kinds: list[Method]) -> None:
    """Raise SpecError for an --adapter-option that no method has, or that has an option of its own."""
    own_name = "r" if any(name == kind.rank for kind in kinds) else name
    if own_name in _ADAPTER:
        raise SpecError(f"--adapter-option {name} has an option of its own.", f"Use {flag(own_name)}.")
    if not any(name in kind.options for kind in kinds):
        known = sorted({option for kind in kinds for option in kind.options} - {*_ADAPTER})
        what = f"{' or '.join(methods)} has no option {name!r} that decides its size."
        raise SpecError(f"{what} {did_you_mean(name, known)}".rstrip(), f"Options: {', '.join(known) or 'none'}.")


# ── the specs ───────────────────────────────────────────────────────────────────────────────────────────


def _recipe(method: str, given: Given, base: Recipe) -> Recipe:
    """The base with the method, and the options that were given in place of its own."""
    peft_type, quantized = split_method(method)
    own = parsed(type(base), given)
    merged = ADAPTER_KIND.parse(given.get("adapter", "dynamic")) != "dynamic"  # adds nothing to the base
    return replace(
        base,
        **own,
        adapter=_adapter(peft_type, given, base.adapter) if peft_type and not merged else None,
        quantization=_quantization(own.get("dtype", base.dtype), given, base.quantization) if quantized else None,
        parallelism=_parallelism(given, base.parallelism, "fsdp" if isinstance(base, TrainingSpec) else "tensor"),
    )


def _parallelism(given: Given, base: ParallelismSpec, sharded: str) -> ParallelismSpec:
    """Several GPUs share the model as the task does by default, in nodes of eight, unless that is named."""
    own = parsed(ParallelismSpec, given)
    if base == ONE_GPU:
        gpus = own.get("gpus", 1)
        several = gpus > 1 or own.get("cpu_offload")
        own = {"nodes": usual_nodes(gpus), "strategy": sharded if several else "none", **own}
    return replace(base, **own)


def _quantization(dtype: DType, given: Given, base: QuantizationSpec | None) -> QuantizationSpec:
    """The base, with blocks and bits that another scheme has by default, or what is usual."""
    own = parsed(QuantizationSpec, given)
    if base is None:
        return quantization_for(dtype, **own)
    if own.get("quant_type", base.quant_type) != base.quant_type:
        own = {"blocksize": None, "bits": None, **own}
    return replace(base, **own)


def _adapter(peft_type: str, given: Given, base: AdapterSpec | None) -> AdapterSpec:
    """The base where it is of this type, else LORA or PEFT's defaults, with the options that the type has."""
    if base is None or base.peft_type != peft_type:
        base = LORA if peft_type == "lora" else AdapterSpec(peft_type=peft_type)
    method = METHODS[peft_type]
    own = {name: value for name, value in given.items() if name in _ADAPTER and type_has(name, method)}
    extra = {
        name: str(value) if isinstance(method.options[name], str) else value
        for name, value in own.pop("adapter_options", {}).items()
        if name in method.options
    }
    held = {option.name: option.parse(own[option.name]) for option in _HELD if option.name in own}
    options = {**dict(base.options), **extra, **held}
    return replace(base, **parsed(AdapterSpec, own), options=tuple(sorted(options.items())))


*_HELD, _OTHERS = (option for option in options_of(AdapterSpec) if option.field == "options")
