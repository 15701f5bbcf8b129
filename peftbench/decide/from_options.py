"""Turn names of methods and flat options into recipes, and refuse an option that none of the methods has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from functools import lru_cache
from typing import Any

from peftbench.base.errors import SpecError, did_you_mean
from peftbench.decide.methods import LORA, quantization_for
from peftbench.decide.recipe import ZERO_GRADS
from peftbench.estimate.peft_types.table import METHODS, NOT_DERIVED, Method
from peftbench.inputs.model.spec import ModelSpec, OtherModel
from peftbench.inputs.recipe.adapter import AdapterSpec
from peftbench.inputs.recipe.dtype import DType
from peftbench.inputs.recipe.inference import InferenceSpec
from peftbench.inputs.recipe.parallelism import ParallelismSpec, usual_nodes
from peftbench.inputs.recipe.quantization import QuantizationSpec
from peftbench.inputs.recipe.training import TrainingSpec
from peftbench.inputs.schemes.scheme import OPTIONS as SCHEME_OPTIONS
from peftbench.inputs.schemes.scheme import Scheme, scheme_of, schemes_with

COMPARED = ("full", "lora", "qlora")
"""The methods that are compared when none is named."""

ADAPTER_KINDS = ("merged", "dynamic", "none")

_BOTH = ("dtype", "attention", "gpus", "nodes", "parallel", "cpu_offload")
_TRAINING = (
    "sequence_length", "padded", "micro_batch_size", "gradient_accumulation_steps", "gradient_checkpointing",
    "autocast", "optimizer", "loss", "fused_kernels", "loop", "zero_grad", "use_cache", "use_reentrant",
    "transformers",
)  # fmt: skip
_INFERENCE = ("prompt_tokens", "new_tokens", "batch_size", "adapter")
_QUANTIZATION = ("quant_type", "upcast_unquantized", "upcast_norms", *SCHEME_OPTIONS)

_ADAPTER: Mapping[str, Callable[[Method], bool]] = {
    "r": lambda method: method.rank is not None,
    "target_modules": lambda method: method.each is not None,
    "adapter_dtype": lambda method: True,
    "use_dora": lambda method: "use_dora" in method.options,
    "use_rslora": lambda method: "use_rslora" in method.options,
    "lora_dropout": lambda method: "lora_bias" in method.options,
    "num_virtual_tokens": lambda method: "num_virtual_tokens" in method.options,
    "adapter_options": lambda method: True,
}
"""What a PEFT type must have for an option to concern it."""

OPTIONS = (*_BOTH, *_TRAINING, *_INFERENCE, *_ADAPTER, *_QUANTIZATION)
"""Every flat option, named as on the command line with underscores."""

Given = Mapping[str, Any]
"""Options that were given: those that are None were not."""


def training_recipes(methods: tuple[str, ...], options: Given) -> tuple[TrainingSpec, ...]:
    """Build one recipe a method, each with those of the options that the method has.

    Raises SpecError for an unknown method, and for an option that none of the methods has.
    """
    given = _checked(methods, options, "training", _TRAINING)
    return tuple(dict.fromkeys(_training(method, given) for method in methods))


def inference_requests(methods: tuple[str, ...], options: Given) -> tuple[InferenceSpec, ...]:
    """Build one request a method, without those that come out equal; raises as training_recipes."""
    given = _checked(methods, options, "inference", _INFERENCE)
    return tuple(dict.fromkeys(_inference(method, given) for method in methods))


def within_positions(
    model: ModelSpec | OtherModel, task: str, methods: tuple[str, ...], options: Given
) -> dict[str, Any]:
    """Cut a default length to the positions of the model; lengths that were given stay as they are."""
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
    return int(options.get("num_virtual_tokens") or default) if default else 0


# ── methods ─────────────────────────────────────────────────────────────────────────────────────────────


def split_method(name: str) -> tuple[str | None, bool]:
    """Return PEFT's type (None for full) and whether the base is quantized: "qlora" is ("lora", True).

    Raises SpecError for a name that is not a method.
    """
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


def _checked(methods: tuple[str, ...], options: Given, task: str, own: tuple[str, ...]) -> Given:
    """The given options; each belongs to the task or to at least one of the methods."""
    given = {name: value for name, value in options.items() if value is not None}
    kinds = [split_method(method) for method in methods]
    for name, value in given.items():
        if name not in OPTIONS:
            raise SpecError(f"unknown option {name!r}. {did_you_mean(name, OPTIONS)}".rstrip())
        _check_type(name, value)
        if name in (*_TRAINING, *_INFERENCE) and name not in own:
            raise SpecError(f"{_flag(name)} does not belong to --task {task}.", "Leave it out, or change the task.")
        method_has = any(_concerns(name, peft_type, quantized, given) for peft_type, quantized in kinds)
        if name not in (*own, *_BOTH) and not method_has:
            of_scheme = name in SCHEME_OPTIONS and any(quantized for _, quantized in kinds)
            what = f"--quant-type {given['quant_type']}" if of_scheme else " or ".join(methods)
            raise SpecError(f"{_flag(name)} has no effect with {what}.", _owner(name, given))
    for name in _extra(given):
        _check_extra(name, methods, [METHODS[peft_type] for peft_type, _ in kinds if peft_type])
    if "adapter" in given and not any(peft_type for peft_type, _ in kinds):
        raise SpecError("--adapter does not concern full: it has none.", "It belongs to --method lora, qlora ….")
    if given.get("adapter") == "none" and any(name in given for name in _ADAPTER):
        raise SpecError("--adapter none leaves no adapter to give options to.", "Use --adapter dynamic.")
    return given


def _check_type(name: str, value: object) -> None:
    """What Python and files give may be of any type; the command line has checked it."""
    wanted = _types().get(name)
    if wanted and type(value) not in wanted:
        what = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}[wanted[0]]
        raise SpecError(f"{_flag(name)} must be {what}, not {value!r}.")


@lru_cache(maxsize=1)
def _types() -> dict[str, tuple[type, ...]]:
    """Of options that are plain values, as the defaults of the specs have them."""
    found: dict[str, tuple[type, ...]] = {"r": (int,), "num_virtual_tokens": (int,), "lora_dropout": (float, int)}
    specs: tuple[Any, ...] = (TrainingSpec, InferenceSpec, QuantizationSpec, AdapterSpec, ParallelismSpec)
    for spec in specs:
        plain = (field for field in fields(spec) if type(field.default) in (int, bool, str))
        found |= {field.name: (type(field.default),) for field in plain}
    return found


def _concerns(name: str, peft_type: str | None, quantized: bool, given: Given) -> bool:
    """Whether the option can change a recipe of this method."""
    if name in _QUANTIZATION:
        return quantized and (name not in SCHEME_OPTIONS or name in _scheme(given).options)
    return name in _ADAPTER and peft_type is not None and _ADAPTER[name](METHODS[peft_type])


def _scheme(given: Given) -> Scheme:
    return scheme_of(given.get("quant_type", QuantizationSpec.quant_type))


def _owner(name: str, given: Given) -> str:
    """Where the option belongs, as a hint."""
    if name in SCHEME_OPTIONS and name not in _scheme(given).options:
        return f"It belongs to --quant-type {' or '.join(schemes_with(name))}."
    if name in _QUANTIZATION:
        return "It belongs to a quantized base: --method qlora."
    owners = [peft_type for peft_type, method in METHODS.items() if _ADAPTER[name](method)]
    return f"It belongs to --method {', '.join(owners[:6])}{' …' if len(owners) > 6 else ''}."


def _check_extra(name: str, methods: tuple[str, ...], kinds: list[Method]) -> None:
    """Raise SpecError for an --adapter-option that no method has, or that has an option of its own."""
    own_flag = "r" if any(name == kind.rank for kind in kinds) else name
    if own_flag in _ADAPTER:
        raise SpecError(f"--adapter-option {name} has an option of its own.", f"Use {_flag(own_flag)}.")
    if not any(name in kind.options for kind in kinds):
        known = sorted({option for kind in kinds for option in kind.options} - {*_ADAPTER})
        what = f"{' or '.join(methods)} has no option {name!r} that decides its size."
        raise SpecError(f"{what} {did_you_mean(name, known)}".rstrip(), f"Options: {', '.join(known) or 'none'}.")


def _flag(name: str) -> str:
    return "--adapter-option" if name == "adapter_options" else "--" + name.replace("_", "-")


# ── the specs ───────────────────────────────────────────────────────────────────────────────────────────


def _training(method: str, given: Given) -> TrainingSpec:
    fields = {name: given[name] for name in (*_TRAINING, "attention") if name in given and name != "zero_grad"}
    if "zero_grad" in given:
        fields["zero_grad_keeps"] = _one_of("zero_grad", given["zero_grad"], ZERO_GRADS) == "keep"
    return TrainingSpec(**fields, **_shared(method, given), parallelism=_parallelism(given, "fsdp"))


def _inference(method: str, given: Given) -> InferenceSpec:
    """A merged adapter adds nothing to the base, so it is written as none."""
    fields = {name: given[name] for name in (*_INFERENCE, "attention") if name in given and name != "adapter"}
    shared = _shared(method, given)
    if _one_of("adapter", given.get("adapter", "dynamic"), ADAPTER_KINDS) != "dynamic":
        shared["adapter"] = None
    return InferenceSpec(**fields, **shared, parallelism=_parallelism(given, "tensor"))


def _parallelism(given: Given, sharded: str) -> ParallelismSpec:
    """Several GPUs share the model as the task does by default, in nodes of eight, unless that is named."""
    gpus = given.get("gpus", 1)
    offload = given.get("cpu_offload", False)
    strategy = given.get("parallel", sharded if gpus > 1 or offload else "none")
    nodes = given.get("nodes", usual_nodes(gpus) if gpus > 1 else 1)
    return ParallelismSpec(gpus=gpus, nodes=nodes, strategy=strategy, cpu_offload=offload)


def _shared(method: str, given: Given) -> dict[str, Any]:
    """What training and inference have in common: dtype, adapter and quantization."""
    peft_type, quantized = split_method(method)
    dtype = _dtype("dtype", given.get("dtype", TrainingSpec.dtype))
    return {
        "dtype": dtype,
        "adapter": _adapter(peft_type, quantized, given) if peft_type else None,
        "quantization": _quantization(dtype, given) if quantized else None,
    }


def _adapter(peft_type: str, quantized: bool, given: Given) -> AdapterSpec:
    """LORA, or PEFT's defaults for another type, with the options that concern it."""
    fields = {name: given[name] for name in _ADAPTER if name in given and _concerns(name, peft_type, quantized, given)}
    defaults = METHODS[peft_type].options
    options = {
        name: str(value) if isinstance(defaults[name], str) else value
        for name, value in _extra(given).items() if name in defaults
    }  # fmt: skip
    fields.pop("adapter_options", None)
    if "num_virtual_tokens" in fields:
        options["num_virtual_tokens"] = fields.pop("num_virtual_tokens")
    if "target_modules" in fields:
        fields["target_modules"] = _targets(fields["target_modules"])
    if "lora_dropout" in fields:
        fields["dropout"] = _share("lora_dropout", fields.pop("lora_dropout"))
    if "adapter_dtype" in fields:
        fields["dtype"] = _dtype("adapter_dtype", fields.pop("adapter_dtype"))
    base = LORA if peft_type == "lora" else AdapterSpec(peft_type=peft_type)
    return replace(base, **fields, options=tuple(sorted(options.items())))


def _extra(given: Given) -> Mapping[str, Any]:
    extra: Mapping[str, Any] = given.get("adapter_options", {})
    return extra


def _targets(value: str | tuple[str, ...] | list[str]) -> tuple[str, ...]:
    """Names with commas between, or a sequence of names; each once."""
    names = tuple(name.strip() for name in (value.split(",") if isinstance(value, str) else value))
    if not names or not all(names):
        raise SpecError(f"target modules {value!r} hold an empty name.", "Write q_proj,v_proj, or all-linear.")
    return tuple(dict.fromkeys(names))


def _quantization(dtype: DType, given: Given) -> QuantizationSpec:
    fields = {name: given[name] for name in _QUANTIZATION if name in given}
    if "compute_dtype" in fields:
        fields["compute_dtype"] = _dtype("compute_dtype", fields["compute_dtype"])
    return quantization_for(dtype, **fields)


def _dtype(name: str, value: object) -> DType:
    return DType(_one_of(name, value, tuple(dtype.value for dtype in DType)))


def _share(name: str, value: float) -> float:
    if not 0 <= value < 1:
        what = f"{_flag(name)} must be at least 0 and less than 1, not {value}."
        raise SpecError(what, f"Write it as in {_flag(name)} 0.05.")
    return value


def _one_of(name: str, value: object, known: tuple[str, ...]) -> str:
    if value not in known:
        raise SpecError(f"{name} cannot be {value!r}.", f"Choose one of {', '.join(known)}.")
    return str(value)
