"""An adapter_config.json as the AdapterSpec that it amounts to: every field is priced, costs nothing, or is refused.

adapter_fields.json has the fields of each type of PEFT 0.21 with their defaults, from its configuration classes. Those
that decide a size are in the type's row of METHODS; _FREE and _WORDS name those that cost no memory. Any other may only
hold its default: what else it does, only PEFT itself works out.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Annotated, Any

from peftbench.base.codec import Within, from_json
from peftbench.base.errors import NoFormula, SpecError, did_you_mean
from peftbench.base.visible import written
from peftbench.estimate.peft_types.table import Method
from peftbench.estimate.peft_types.tensors import method_of, options_of
from peftbench.inputs.model.spec import ModelSpec, OtherModel
from peftbench.inputs.recipe import ALL_LINEAR, AdapterSpec
from peftbench.inputs.recipe.adapter import NAMED_AS_PEFT, NO_FEEDFORWARD
from peftbench.inputs.recipe.option import MOST, Option

FIELDS = os.path.join(os.path.dirname(__file__), "adapter_fields.json")

_Pattern = dict[str, int | float]
_Size, _Seed = Annotated[int, Within(1)], Annotated[int, Within(0)]
_Positive, _Moving = Annotated[float, Within(0)], Annotated[float, Within(1e-9, 1 - 1e-9)]
_FREE: Mapping[str, Any] = {
    "auto_mapping": dict[str, Any] | None, "peft_version": str | None, "base_model_name_or_path": str | None,
    "revision": str | None, "inference_mode": bool, "fan_in_fan_out": bool, "megatron_core": str | None,
    # scales of what the adapter adds
    "lora_alpha": float, "alpha": float, "alpha_pattern": _Pattern, "lambda_pattern": _Pattern, "scaling": float,
    "psoft_alpha": float, "randlora_alpha": float, "delora_lambda": float,
    # how values are chosen at first
    "init_ia3_weights": bool, "d_initial": float, "init_v_bound": float, "init_scale": float,
    "init_theta_d_bound": Annotated[float, Within(1e-9)], "init_vector_bank_bound": _Positive,
    "init_logits_std": _Positive, "projection_prng_key": int, "random_loc_seed": int, "random_seed": int | None,
    "projection_seed": int, "proj_seed": _Seed,
    "generator_seed": int | None, "select_top": bool, "psoft_svd_lowrank_niter": int, "qalora_group_size": int,
    # AdaLoRA's schedule, CPT's loss
    "target_r": int, "tinit": int, "tfinal": int, "deltaT": int, "beta1": _Moving, "beta2": _Moving,
    "orth_reg_weight": _Positive, "total_step": int | None, "opt_loss_decay_factor": float,
    "opt_projection_epsilon": float, "opt_projection_format_epsilon": float,
    # of the model, filled in by PEFT
    "token_dim": _Size, "num_attention_heads": _Size, "num_layers": _Size,
}  # fmt: skip
"""Fields that change no byte of a step, with the values that PEFT takes beside its default."""
_PISSA = re.compile(r"pissa_niter_[0-9]+")
_WORDS: Mapping[str, tuple[object, ...]] = {
    "init_lora_weights": (True, False, "gaussian", "olora", "pissa", "orthogonal"),
    "init_weights": (True, False),
    "opt_weighted_loss_type": ("none", "decay"),
    "num_transformer_submodules": (1,),
    "prompt_tuning_init": ("SAMPLE_VOCAB",),
    "ab_svd_init": ("pissa_init",),
}
"""The same where only some values are free: the matrices that these start from have the same sizes."""
_EMPTY = ("modules_to_save", "exclude_modules", "layers_to_transform", "layers_pattern")
_TASK = "CAUSAL_LM"
_BIAS = ("all", "lora_only", "delora_only", "oft_only")
_EITHER = (("OFT", "oft_block_size", "r"), ("BOFT", "boft_block_size", "boft_block_num"))
"""Two ways to give one size, of which PEFT wants the other to be 0."""
_CONTEXT = ("cpt_token_ids", "cpt_mask", "cpt_tokens_type_mask")
_FIXED_TARGETS: Mapping[str, tuple[object, ...]] = {
    "ADAPTION_PROMPT": ("self_attn", "attn"),
    "TRAINABLE_TOKENS": ("model.embed_tokens", "transformer.wte", ["embed_tokens"]),
}
"""What PEFT writes for types that have one target."""
_DRY_RUN = "Use --dry-run."


def adapter_of(config: Mapping[str, Any]) -> AdapterSpec:
    """The spec of the adapter that these fields ask for, PEFT's defaults filled in.

    Raises SpecError for what PEFT or this package refuses, NoFormula for what only PEFT itself can work out.
    """
    try:
        return _adapter_of(config)
    except SpecError as error:
        raise type(error)(error.what, error.hint or "Correct it there, or leave it out for PEFT's default.") from None


def _adapter_of(config: Mapping[str, Any]) -> AdapterSpec:
    kind = peft_type_of(config)
    known = fields_of(kind)
    fields = {name: config.get(name, default) for name, default in known.items()}
    if fields["task_type"] not in (None, _TASK):
        what = f"an adapter of task_type {written(fields['task_type'])} is not priced, only one of {_TASK}."
        raise SpecError(what, "Pass the adapter of a causal language model.")
    method = method_of(AdapterSpec(peft_type=kind.lower()))
    read = {"peft_type", "task_type", "target_modules", *_named(kind), *method.options, *_CONTEXT}
    for name, value in fields.items():
        if name not in read:
            _check_field(name, value, known[name])
    _check_together(kind, fields)
    adapter = _spec(kind, method, fields, config)
    options_of(adapter)
    return adapter


def peft_type_of(config: Mapping[str, Any]) -> str:
    """PEFT's name of the type: "LORA". Raises SpecError where PEFT has none of this name."""
    kind, known = config.get("peft_type"), [name for name in _table() if name.isupper()]
    if isinstance(kind, str) and kind in known:
        return kind
    word = kind[:60] if isinstance(kind, str) else ""
    near = f"Did you mean {word.upper()}?" if word.upper() in known else did_you_mean(word, known)
    raise SpecError(f"unknown PEFT type {written(kind)}. {near}".rstrip(), f"PEFT has {', '.join(known)}.")


def check_model(config: Mapping[str, Any], model: ModelSpec | OtherModel) -> None:
    """Raise SpecError for a prompt or prefix of another model: its file has the sizes of the model that it is for."""
    if not isinstance(model, ModelSpec):
        return  # a dry run shows it to PEFT
    sizes = {"token_dim": (model.hidden_size, model.key_value_size), "num_layers": (model.num_hidden_layers,)}
    for name, wanted in sizes.items():
        if config.get(name) is not None and config[name] not in wanted:
            what = f"{name} {written(config[name])} of the adapter is not that of {model.name}, {wanted[0]:,}."
            raise SpecError(what, "Name the model that it was made for, or leave the field out.")


def fields_of(kind: str) -> Mapping[str, Any]:
    """PEFT's fields of a type with their defaults."""
    return {**_table()["every type"], **_table()[kind]}


def unknown_fields(config: Mapping[str, Any]) -> Iterator[str]:
    """A note for those that PEFT does not know, which it leaves out when it loads the file."""
    kind = peft_type_of(config)
    unknown = [name for name in config if name not in fields_of(kind)]
    if unknown:
        names, version = ", ".join(unknown), _table()["peft"]
        yield f"the adapter_config.json has fields of {kind} that PEFT {version} does not know and ignores: {names}."


@lru_cache(maxsize=1)
def _table() -> Mapping[str, Any]:
    with open(FIELDS, encoding="utf-8") as file:
        table: Mapping[str, Any] = json.load(file)
        return table


# ── fields that decide no size ──────────────────────────────────────────────────────────────────────────────────────


def _check_field(name: str, value: Any, default: Any) -> None:
    """Raise SpecError for a value of another type, NoFormula for one that changes what there is."""
    if _is_default(name, value, default):
        return
    if name in _FREE:
        from_json(_FREE[name], value, name)
        return
    if name in _WORDS and any(value is word or (value == word and isinstance(value, str)) for word in _WORDS[name]):
        return
    if name == "init_lora_weights" and isinstance(value, str) and _PISSA.fullmatch(value):
        return
    if type(default) in (bool, int, float) and name not in _WORDS:
        from_json(type(default), value, name)
    if name == "bias" and value not in _BIAS:
        raise SpecError(f"bias cannot be {written(value)}.", f"PEFT takes none, {', '.join(_BIAS)}.")
    raise NoFormula(f"{name} {written(value)} of an adapter_config.json has no formula.", _DRY_RUN)


def _is_default(name: str, value: Any, default: Any) -> bool:
    """Also where PEFT takes it for the same: null for false, some empty lists for none. Layer 0 is a layer."""
    if value is None or default is None:
        return value is default or (value is None and default is False) or (value == [] and name in _EMPTY)
    same_kind = type(value) is type(default) or (type(value) is int and type(default) is float)
    return same_kind and bool(value == default)


def _check_together(kind: str, fields: Mapping[str, Any]) -> None:
    """Raise SpecError for fields that contradict each other, as PEFT does in __post_init__ of its configurations."""
    if kind == "ADALORA":
        _check_schedule(fields)
    for of, size, number in _EITHER:
        if kind == of and bool(fields[size]) == bool(fields[number]):
            what = f"{kind} takes {size} or {number}, and 0 for the other (got {written(fields[size])} and "
            raise SpecError(f"{what}{written(fields[number])}).")
    if kind == "CPT" and fields["task_type"] is None:
        raise SpecError(f"CPT is for {_TASK} only, and task_type does not say so.", "Write it in the file.")
    if kind == "SUPERTUNING" and fields["r"] is None and fields["lora_alpha"] is not None:
        raise SpecError("SuperTuning takes lora_alpha together with r.")
    if kind == "P_TUNING" and fields["encoder_reparameterization_type"] == "MLP" and fields["encoder_num_layers"] != 2:
        raise SpecError("encoder_num_layers is of an LSTM: PEFT's MLP has 2.", "Leave it out.")


def _check_schedule(fields: Mapping[str, Any]) -> None:
    total, first, last = (fields[name] for name in ("total_step", "tinit", "tfinal"))
    if not total or total < 0:
        raise SpecError(f"AdaLoRA needs total_step, the steps of the training (got {total}).", "Write it in the file.")
    if first >= total - last:
        raise SpecError("AdaLoRA's tinit and tfinal leave none of its total_step.")


# ── the spec ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _named(kind: str) -> tuple[str, ...]:
    """Options of every adapter that stand in this type's fields as they are."""
    return tuple(option.name for option in NAMED_AS_PEFT) if kind == "LORA" else ("lora_alpha",) * (kind == "ADALORA")


def _spec(kind: str, method: Method, fields: Mapping[str, Any], given: Mapping[str, Any]) -> AdapterSpec:
    """The file's own values, and PEFT's rank and alpha for LoRA, for which other tools have other defaults."""
    said = fields if kind == "LORA" else given
    named = {option.field: _read(option, fields) for option in NAMED_AS_PEFT
             if option.name in _named(kind) and option.name in said}  # fmt: skip
    own = (method.rank, *(option.name for option in NAMED_AS_PEFT))
    options = {name: _value(kind, name, fields, method) for name in method.options if name not in own}
    return AdapterSpec(
        peft_type=kind.lower(), r=_rank(kind, method, fields) if method.rank in said else None,
        target_modules=_targets(kind, fields.get("target_modules")),
        options=tuple(sorted((name, value) for name, value in options.items() if value != method.options[name])),
        **named,
    )  # fmt: skip


def _read(option: Option, fields: Mapping[str, Any]) -> Any:
    value = fields[option.name]
    off = option.kind is bool and value is None
    return option.parse(from_json(option.kind, False if off else value, option.name))


def _rank(kind: str, method: Method, fields: Mapping[str, Any]) -> int | None:
    """OFT's rank is 0 where the size of its blocks is given; SuperTuning may have none."""
    name = str(method.rank)
    optional = method.options[name] is None
    rank = Annotated[int, Within(0 if kind == "OFT" else 1, MOST)]
    return from_json(rank | None if optional else rank, fields[name], name) or None


def _value(kind: str, name: str, fields: Mapping[str, Any], method: Method) -> Any:
    """An option that decides the size, as the command line has it: lists are text with commas between."""
    value, default = fields[name], method.options[name]
    if name == "token_indices":
        return _joined(from_json(tuple[Annotated[int, Within(0)], ...], value, name))
    if name == "feedforward_modules":
        return _joined(_feedforward(value, fields["target_modules"]))
    if kind == "CPT":
        return _context_tokens(fields)
    if name in method.words:
        return _word(name, value, method)
    if value == 0 and any(kind == of and name in pair for of, *pair in _EITHER):
        return default
    if value is None and (default is not None or name == "adapter_layers"):
        what = f"{name} is missing, and PEFT has no default of it for {kind}."
        raise SpecError(what, f"Write it in the file; without one: --adapter-option {name}=10.")
    return value if value is None else from_json(int if default is None else type(default), value, name)


def _word(name: str, value: Any, method: Method) -> Any:
    """A word that decides a size; one that decides none stands for the default."""
    if any(value is word or (value == word and isinstance(value, str)) for word in method.words[name]):
        return value
    _check_field(name, value, method.options[name])
    return method.options[name]


def _joined(values: tuple[Any, ...]) -> str:
    if len(set(values)) < len(values):
        raise SpecError(f"{written(list(values))} has one value twice.", "Name each once.")
    return ",".join(map(str, values))


def _feedforward(value: Any, targets: Any) -> tuple[str, ...]:
    """The modules whose input IA3 scales; none where PEFT's own for the architecture are meant."""
    if value is None:
        return ()
    if value == []:
        return (NO_FEEDFORWARD,)
    if isinstance(value, str) or isinstance(targets, str):
        raise NoFormula(f"feedforward_modules {written(value)} with these targets has no formula.", _DRY_RUN)
    names = from_json(tuple[str, ...], value, "feedforward_modules")
    if targets is not None and not set(names) <= set(from_json(tuple[str, ...], targets, "target_modules")):
        raise SpecError("feedforward_modules have to be among target_modules.")
    return tuple(sorted(names))


def _context_tokens(fields: Mapping[str, Any]) -> int:
    """CPT counts its tokens itself; without any it has one."""
    lists = [from_json(tuple[int, ...] | None, fields[name], name) for name in _CONTEXT]
    ids = lists[0] or (0,)
    if any(each is not None and len(each) != len(ids) for each in lists):
        raise SpecError(f"{', '.join(_CONTEXT)} differ in length.")
    return len(ids)


def _targets(kind: str, value: Any) -> tuple[str, ...] | None:
    """Names, "all-linear" or none; a regular expression is for PEFT to match."""
    if value is None or value in _FIXED_TARGETS.get(kind, ()):
        return None
    if kind in _FIXED_TARGETS:
        raise NoFormula(f"target_modules {written(value)} of a {kind} adapter have no formula.", _DRY_RUN)
    if isinstance(value, str) and value.lower() == ALL_LINEAR:
        return (ALL_LINEAR,)
    if isinstance(value, str) and value:
        raise NoFormula("target_modules that are a regular expression have no formula.", _DRY_RUN)
    names = from_json(tuple[str, ...], value, "target_modules")
    if not names or not all(name.strip() for name in names) or ALL_LINEAR in names:
        what = f"target_modules {written(value)} name no module of a model"
        raise SpecError(f"{what}.", 'Name some, or write "target_modules": "all-linear".')
    return tuple(sorted(set(names)))
