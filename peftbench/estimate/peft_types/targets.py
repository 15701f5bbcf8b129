"""Which modules an adapter is put on: names that the user gives, "all-linear", or PEFT's default.

The tables are those of PEFT 0.21 `utils/constants.py`, for the architectures that peftbench knows by formula.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from peftbench.base.errors import SpecError, did_you_mean
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.model.weights import Role, Weight, linear_modules, weights_of
from peftbench.inputs.recipe.adapter import ALL_LINEAR

Table = Mapping[str, tuple[str, ...]]

_QV = ("q_proj", "v_proj")
_OPT = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
_LLAMA_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "down_proj", "up_proj")
_LLAMA_NORMS = ("input_layernorm", "post_attention_layernorm", "norm")
_GEMMA_NORMS = (*_LLAMA_NORMS[:2], "pre_feedforward_layernorm", "post_feedforward_layernorm", "norm")

LORA: Table = {
    **dict.fromkeys(("llama", "mistral", "mixtral", "qwen2", "qwen3"), _QV),
    **dict.fromkeys(("gemma", "gemma2", "gemma3_text", "opt"), _QV),
    **dict.fromkeys(("gpt2", "gpt_bigcode"), ("c_attn",)),
    **dict.fromkeys(("gpt_neox", "falcon"), ("query_key_value",)),
    "phi": (*_QV, "fc1", "fc2"),
}
"""Also of most other types that adapt matrices."""
VERA: Table = {**LORA, "phi": _QV}
FOURIERFT: Table = {**LORA, "gpt2": ("mlp.c_proj",), "gpt_bigcode": ("mlp.c_proj",)}
ADALORA: Table = {
    **{k: v for k, v in LORA.items() if k not in ("mistral", "mixtral", "falcon", "phi")},
    "opt": _OPT,
}
IA3: Table = {
    **dict.fromkeys(("llama", "mistral"), ("k_proj", "v_proj", "down_proj")),
    **dict.fromkeys(("gemma", "gemma2", "gemma3_text", "qwen2", "qwen3"), (*_QV, "down_proj")),
    **dict.fromkeys(("gpt2", "gpt_bigcode"), ("c_attn", "mlp.c_proj")),
    **dict.fromkeys(("gpt_neox", "falcon"), ("query_key_value", "dense_4h_to_h")),
    "mixtral": ("k_proj", "v_proj", "w2"),
    "opt": ("q_proj", "k_proj", "fc2"),
    "phi": (*_QV, "fc2"),
}
IA3_FEEDFORWARD: Table = {
    **dict.fromkeys(("llama", "mistral", "gemma", "gemma2", "gemma3_text", "qwen2", "qwen3"), ("down_proj",)),
    **dict.fromkeys(("gpt2", "gpt_bigcode"), ("mlp.c_proj",)),
    **dict.fromkeys(("gpt_neox", "falcon"), ("dense_4h_to_h",)),
    **dict.fromkeys(("opt", "phi"), ("fc2",)),
    "mixtral": ("w2",),
}
"""Targets whose input IA3 scales, not their output."""
BEFT: Table = dict.fromkeys(
    ("llama", "mistral", "mixtral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "opt", "phi"),
    ("v_proj",),
)
OSF: Table = {
    **dict.fromkeys(("llama", "mistral", "mixtral", "qwen2", "qwen3", "gemma"), _LLAMA_LINEAR),
    **dict.fromkeys(("gemma2", "gemma3_text", "phi"), _LLAMA_LINEAR),
    **dict.fromkeys(("gpt2", "gpt_bigcode"), ("c_attn", "c_proj")),
    **dict.fromkeys(("gpt_neox", "falcon"), ("query_key_value", "dense_4h_to_h")),
    "opt": _OPT,
}
LN_TUNING: Table = {
    **dict.fromkeys(("llama", "mistral", "gemma"), _LLAMA_NORMS),
    **dict.fromkeys(("gemma2", "gemma3_text"), _GEMMA_NORMS),
    **dict.fromkeys(("qwen2", "qwen3"), ("post_attention_layernorm",)),
    "gpt2": ("ln_1", "ln_2", "ln_f"),
    "falcon": ("input_layernorm", "post_attention_layernorm", "ln_f"),
    "phi": ("input_layernorm", "final_layernorm"),
}


def matches(path: str, names: tuple[str, ...]) -> bool:
    """Whether PEFT would take the module for a target: a name matches the whole path or its last parts."""
    return any(path == name or path.endswith(f".{name}") for name in names)


_QWEN_EXPERTS = {
    "gate": "gate",
    "gate_proj": "gate_up_proj",
    "up_proj": "gate_up_proj",
    "down_proj": "down_proj",
}
EXPERT_TARGETS: Mapping[str, Mapping[str, str]] = {
    "mixtral": {"gate": "gate", "w1": "gate_up_proj", "w3": "gate_up_proj", "w2": "down_proj"},
    "qwen3_moe": _QWEN_EXPERTS,
}
"""What LoRA makes of the names that router and experts had in transformers 4.

Source: `_MOE_TARGET_MODULE_MAPPING` in PEFT 0.21 `utils/transformers_weight_conversion.py`.
all-linear takes all of them.
"""


@lru_cache(maxsize=1024)
def targeted_weights(
    model: ModelSpec, names: tuple[str, ...] | None, roles: frozenset[Role], table_name: str
) -> tuple[Weight, ...]:
    """The weights that an adapter on modules of these names changes, of the given roles.

    Raises SpecError for a name that no such module has, and where None has no default for the architecture.
    """
    candidates = _candidates(model, roles)
    renamed = EXPERT_TARGETS.get(model.model_type, {}) if Role.EXPERTS in roles else {}
    if names is None and table_name == "osf" and model.model_type not in OSF:
        names = (ALL_LINEAR,)
    if names is None:
        # For LoRA on these, PEFT 0.21 loses its own default when it renames targets, and then refuses.
        defaults = () if renamed else TABLES[table_name].get(model.model_type, ())
        return _default_weights(model, candidates, defaults)
    if names == (ALL_LINEAR,):
        return _all_linear(model, candidates, renamed)
    for name in names:
        if name not in renamed and not any(matches(w.path, (name,)) for w in candidates):
            raise _missing(model, name, candidates)
    plain = tuple(name for name in names if name not in renamed)
    inside = _expert_parameters(names, renamed)

    def chosen(weight: Weight) -> bool:
        return _name(weight) in inside if weight.role in SPARSE else matches(weight.path, plain)

    return tuple(weight for weight in candidates if chosen(weight))


SPARSE = frozenset({Role.ROUTER, Role.EXPERTS})
"""Parameters that PEFT wraps one by one, with target_parameters."""


def _name(weight: Weight) -> str:
    """What identifies a router or expert parameter: "gate", "gate_up_proj"."""
    return weight.parameter if weight.role is Role.EXPERTS else weight.module


def _candidates(model: ModelSpec, roles: frozenset[Role]) -> tuple[Weight, ...]:
    """Weights of modules that can be targets; a tied head is a module, though it has no weight of its own."""
    wanted = (w for w in weights_of(model) if w.role in roles)
    found = tuple(w for w in wanted if w.parameter != "bias" or w.role is Role.NORM)
    if Role.LM_HEAD in roles and model.tie_word_embeddings:
        found += (Weight("lm_head", "weight", (model.vocab_size, model.embedding_size), Role.LM_HEAD),)
    return found


def _all_linear(
    model: ModelSpec, candidates: tuple[Weight, ...], renamed: Mapping[str, str]
) -> tuple[Weight, ...]:
    if not any(w.role is Role.LINEAR for w in candidates):
        raise SpecError("this adapter is not put on linear modules.", "Leave --target-modules out.")
    linear, inside = linear_modules(model), set(renamed.values())
    return tuple(
        w for w in candidates
        if (w.role is Role.LINEAR and w.module in linear and w.module not in renamed)
        or (w.role in SPARSE and _name(w) in inside)
    )  # fmt: skip


def _expert_parameters(names: tuple[str, ...], renamed: Mapping[str, str]) -> set[str]:
    """The fused parameters that old names stand for; both halves of gate_up_proj are named, or neither."""
    inside = {renamed[name] for name in names if name in renamed}
    halves = {old for old, new in renamed.items() if new == "gate_up_proj"}
    if "gate_up_proj" in inside and not halves <= set(names):
        raise SpecError(
            f"the experts' {' and '.join(sorted(halves))} are fused: PEFT adapts both or neither.",
            f"Name both: --target-modules {','.join(sorted(halves))}.",
        )
    return inside


def _default_weights(
    model: ModelSpec, candidates: tuple[Weight, ...], defaults: tuple[str, ...]
) -> tuple[Weight, ...]:
    chosen = tuple(w for w in candidates if matches(w.path, defaults))
    if chosen:
        return chosen
    linear = any(w.role is Role.LINEAR for w in candidates)
    names = ",".join((linear_modules(model) if linear else modules_of(candidates))[:2])
    raise SpecError(
        f"PEFT has no default target modules for {model.model_type} with this adapter.",
        f"Name them: --target-modules {names}{' (or all-linear)' if linear else ''}.",
    )


def modules_of(weights: tuple[Weight, ...]) -> tuple[str, ...]:
    """The names of the modules that the weights belong to, each once."""
    return tuple(dict.fromkeys(w.module for w in weights))


def _missing(model: ModelSpec, name: str, candidates: tuple[Weight, ...]) -> SpecError:
    known = modules_of(candidates)
    if any(matches(w.path, (name,)) or w.parameter == name for w in weights_of(model)):
        what = f"this adapter cannot be put on {name!r} of {model.name}."
        if model.num_experts:
            what += " Experts are fused parameters, which target_modules do not reach."
    else:
        what = f"{model.name} has no module {name[:40]!r}. {did_you_mean(name[:40], (*known, ALL_LINEAR))}".rstrip()
    return SpecError(what, f"It has {', '.join(known)}.")


TABLES: Mapping[str, Table] = {
    "lora": LORA, "vera": VERA, "fourierft": FOURIERFT, "adalora": ADALORA, "ia3": IA3, "beft": BEFT,
    "osf": OSF, "ln_tuning": LN_TUNING,
}  # fmt: skip
