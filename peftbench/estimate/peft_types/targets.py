"""Which modules an adapter is put on: names that the user gives, "all-linear", or PEFT's default.

The defaults are those of PEFT 0.21, which stand in each family's row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from peftbench.base.errors import NoFormula, SpecError, did_you_mean
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.model.weight import Role, Weight
from peftbench.inputs.model.weights import linear_modules, weights_of
from peftbench.inputs.recipe import ALL_LINEAR, AdapterSpec


def matches(path: str, names: tuple[str, ...]) -> bool:
    """Whether PEFT would take the module for a target: a name matches the whole path or its last parts."""
    return any(path == name or path.endswith(f".{name}") for name in names)


def is_feedforward(path: str, model: ModelSpec, options: Mapping[str, Any]) -> bool:
    """Whether IA3 scales what goes into the module, not what comes out of it."""
    named = options.get("feedforward_modules")
    if named and any(part.isdigit() for part in named.replace(",", ".").split(".")):
        raise NoFormula("feedforward_modules by layer have no formula.", "Use --dry-run, or name them in every layer.")
    return matches(path, tuple(named.split(",")) if named else model.family.targets.ia3_feedforward)


def refused_modules(model: ModelSpec, adapter: AdapterSpec) -> tuple[str, ...]:
    """Names of linear layers that PEFT refuses to adapt: of some state-space layers, for types like LoRA.

    Source: _check_lora_target_modules_mamba in peft/tuners/tuners_utils.py.
    """
    return model.family.refused if adapter.peft_type in ("lora", "adalora", "xlora", "randlora") else ()


@lru_cache(maxsize=1024)
def targeted_weights(
    model: ModelSpec,
    names: tuple[str, ...] | None,
    roles: frozenset[Role],
    table_name: str,
    refused: tuple[str, ...] = (),
) -> tuple[Weight, ...]:
    """The weights that an adapter on modules of these names changes, of the given roles, but for those refused.

    Raises SpecError for a name that no such module has, or that is refused, and where None has no default for the
    architecture.
    """
    candidates = tuple(w for w in _candidates(model, roles) if w.module not in refused)
    for name in names or ():
        if name in refused:
            what = f"PEFT does not adapt {name} of {model.model_type}, whose kernel takes the weight past any adapter."
            raise SpecError(what, "Leave it out of --target-modules.")
    defaults: tuple[str, ...] = getattr(model.family.targets, table_name)
    renamed = model.family.expert_targets if Role.EXPERTS in roles and not model.split_experts else {}
    if names is None and table_name == "osf" and not defaults:
        names = (ALL_LINEAR,)
    if names is None:
        # For LoRA on renamed experts, PEFT 0.21 loses its own default, and then refuses.
        return _default_weights(model, candidates, () if renamed else defaults)
    if names == (ALL_LINEAR,):
        return _all_linear(model, candidates, renamed)
    numbered = _by_module(model, candidates) if any("." in name for name in names) else {}
    for name in names:
        if name not in renamed and name not in numbered and not any(matches(w.path, (name,)) for w in candidates):
            raise _missing(model, name, candidates)
    plain = tuple(name for name in names if name not in renamed)
    inside = _expert_parameters(names, renamed)
    found = (numbered[name] for name in plain if name in numbered)
    layers: dict[str, set[int]] = {}
    for path, layer in (each for places in found for each in places):
        layers.setdefault(path, set()).update(() if layer is None else (layer,))

    def chosen(weight: Weight) -> Weight | None:
        if weight.role in SPARSE:
            return weight if _name(weight) in inside else None
        if matches(weight.path, plain):
            return weight
        return _in_layers(weight, layers[weight.path]) if weight.path in layers else None

    return tuple(weight for weight in map(chosen, candidates) if weight)


def _in_layers(weight: Weight, layers: set[int]) -> Weight:
    """The weight in some of its layers alone."""
    return weight if weight.layers is None else replace(weight, layers=tuple(i for i in weight.layers if i in layers))


Place = tuple[str, int | None]
"""A module's path in its layer, and the layer; None outside the layers."""


def _by_module(model: ModelSpec, candidates: tuple[Weight, ...]) -> Mapping[str, tuple[Place, ...]]:
    """Modules by their names from the root of the model, and by all that these end with: "0.self_attn.q_proj".

    A name that is a layer's own, as "self_attn.q_proj", is not among them: it stands for all layers.
    """
    found: dict[str, list[Place]] = {}
    outer = model.family.layout.layers
    for weight in candidates:
        if weight.role in SPARSE or weight.of_expert:
            continue
        for layer in weight.layers or (None,):
            head = weight.role is Role.LM_HEAD
            before = "" if head else outer.rpartition(".")[0] if layer is None else f"{outer}.{layer}"
            parts = before.split(".") if before else []
            for start in range(len(parts)):
                found.setdefault(".".join((*parts[start:], weight.path)), []).append((weight.path, layer))
    return {name: tuple(places) for name, places in found.items()}


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


def _all_linear(model: ModelSpec, candidates: tuple[Weight, ...], renamed: Mapping[str, str]) -> tuple[Weight, ...]:
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


def _default_weights(model: ModelSpec, candidates: tuple[Weight, ...], defaults: tuple[str, ...]) -> tuple[Weight, ...]:
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
