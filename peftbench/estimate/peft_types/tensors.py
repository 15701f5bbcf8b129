"""What an adapter adds to a model: the tensors it trains, those it only keeps, and its file."""

from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from math import prod
from typing import NamedTuple

from peftbench.base.errors import NoFormula, SpecError, did_you_mean
from peftbench.base.visible import written
from peftbench.estimate.parts.base_weights import HEADER_BYTES_PER_TENSOR
from peftbench.estimate.parts.tensors import TensorGroup, total_numel
from peftbench.estimate.peft_types.frozen import Frozen, Kind
from peftbench.estimate.peft_types.shapes import Options, Shape, Site
from peftbench.estimate.peft_types.table import METHODS, NOT_DERIVED, Method, Saved, TrainedIn, Value
from peftbench.estimate.peft_types.targets import SPARSE, is_feedforward, modules_of, refused_modules, targeted_weights
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.model.weight import Role, Weight
from peftbench.inputs.model.weights import is_router, weights_of
from peftbench.inputs.recipe import AdapterSpec, DType

MODEL = "model"
"""Stands for a module name where a tensor belongs to the model as a whole."""


class _Adapter(NamedTuple):
    """A checked AdapterSpec with its options filled in and its modules found."""

    method: Method
    options: Options
    weights: tuple[Weight, ...]
    sites: tuple[Site, ...]


def method_of(adapter: AdapterSpec) -> Method:
    """The row of the adapter's type; raises SpecError for a type that is unknown or not modelled."""
    if adapter.peft_type in METHODS:
        return METHODS[adapter.peft_type]
    hint = f"Choose one of {', '.join(METHODS)}."
    if adapter.peft_type in NOT_DERIVED:
        raise NoFormula(f"the size of a {adapter.peft_type} adapter is not modelled.", hint)
    what = f"unknown PEFT type {adapter.peft_type!r}. {did_you_mean(adapter.peft_type, METHODS)}".rstrip()
    raise SpecError(what, hint)


@lru_cache(maxsize=1024)
def options_of(adapter: AdapterSpec) -> Options:
    """The adapter's options by PEFT's names, defaults filled in; raises SpecError for those that are not its own."""
    method = method_of(adapter)
    given: dict[str, Value] = dict(adapter.options)
    if adapter.r is not None:
        if method.rank is None:
            raise SpecError(f"{adapter.peft_type} has no rank.", "Leave --r out.")
        given[method.rank] = adapter.r
    for flag in ("use_dora", "use_rslora"):
        if getattr(adapter, flag):
            given[flag] = True
    for name, value in given.items():
        _check_option(adapter.peft_type, name, value, method)
    return {**method.options, **given}


@lru_cache(maxsize=1024)
def target_modules(model: ModelSpec, adapter: AdapterSpec) -> tuple[str, ...]:
    """The names of the modules that carry the adapter; empty for prompts and prefixes.

    Raises SpecError for a name that the model lacks, and where PEFT has no default for the architecture.
    """
    return modules_of(_resolve(model, adapter).weights)


@lru_cache(maxsize=1024)
def adapted_weights(model: ModelSpec, adapter: AdapterSpec) -> tuple[Weight, ...]:
    """The weights of the modules that carry the adapter, in the order of the model; empty for prompts."""
    return _resolve(model, adapter).weights


@lru_cache(maxsize=1024)
def adapted_paths(model: ModelSpec, adapter: AdapterSpec | None) -> frozenset[str]:
    """The paths of those weights."""
    return frozenset(weight.path for weight in adapted_weights(model, adapter)) if adapter else frozenset()


@lru_cache(maxsize=1024)
def adapted_by_layer(model: ModelSpec, adapter: AdapterSpec | None) -> tuple[frozenset[str], ...]:
    """The paths of those in each decoder layer: modules that were named in full are adapted in some layers alone."""
    paths: list[set[str]] = [set() for _ in range(model.num_hidden_layers)]
    for weight in adapted_weights(model, adapter) if adapter else ():
        for layer in weight.layers or ():
            paths[layer].add(weight.path)
    return tuple(map(frozenset, paths))


@lru_cache(maxsize=1024)
def adapter_tensors(
    model: ModelSpec, adapter: AdapterSpec, base_dtype: DType = DType.BFLOAT16
) -> tuple[TensorGroup, ...]:
    """Every tensor that the adapter trains: parameters, gradients and optimizer states are sums over these.

    `base_dtype` matters to the types that train in it (ln_tuning, adaption_prompt).
    Raises SpecError for what PEFT would refuse, and for a rank above a matrix's smaller dimension.
    """
    found = _resolve(model, adapter)
    dtype = _trained_dtype(found.method, adapter, base_dtype)
    counted = _trained(model, found).items()
    groups = tuple(TensorGroup(module, shape, count, dtype) for (module, shape), count in counted if prod(shape))
    if not groups:
        raise SpecError(f"this {adapter.peft_type} adapter trains nothing.", "Change its options, or its targets.")
    return groups


def trainable_parameters(model: ModelSpec, adapter: AdapterSpec) -> int:
    """What PEFT's get_nb_trainable_parameters() counts."""
    return total_numel(adapter_tensors(model, adapter))


@lru_cache(maxsize=1024)
def frozen_bytes(model: ModelSpec, adapter: AdapterSpec, base_dtype: DType = DType.BFLOAT16) -> int:
    """Bytes that the adapter keeps on the card and does not train: projections, indices, copies."""
    found = _resolve(model, adapter)
    each = found.method.frozen_each
    sizes = (s.count * _frozen_size(each(s, found.options), adapter, base_dtype) for s in found.sites)
    return sum(sizes) + _frozen_whole_bytes(model, found, adapter, base_dtype)


def frozen_on_card_bytes(model: ModelSpec, adapter: AdapterSpec, base_dtype: DType, moved: bool) -> int:
    """The same without what stays in host memory; `moved`: the Trainer has moved the whole model, buffers and all."""
    if method_of(adapter).frozen_on_host and not moved:
        return 0
    return frozen_bytes(model, adapter, base_dtype)


@lru_cache(maxsize=1024)
def adapter_file_bytes(model: ModelSpec, adapter: AdapterSpec, base_dtype: DType = DType.BFLOAT16) -> int:
    """Size of the adapter_model.safetensors that save_pretrained writes, its header estimated."""
    found = _resolve(model, adapter)
    dtype = _trained_dtype(found.method, adapter, base_dtype)
    tensors = _saved(model, found)
    data = sum(prod(shape) * count for (_, shape), count in tensors.items()) * dtype.bytes
    if found.method.saved is Saved.WITH_FROZEN:
        data += frozen_bytes(model, adapter, base_dtype)
    elif found.method.saved is Saved.WITH_COPIES:
        copies = 1 + sum(site.count for site in found.sites)
        data += copies * _frozen_whole_bytes(model, found, adapter, base_dtype)
    # save_embedding_layers="auto" adds the base weights of adapted embeddings
    data += sum(w.numel * base_dtype.bytes for w in found.weights if w.module in ("embed_tokens", "lm_head"))
    return data + sum(tensors.values()) * HEADER_BYTES_PER_TENSOR


def _trained_dtype(method: Method, adapter: AdapterSpec, base_dtype: DType) -> DType:
    dtypes = {TrainedIn.ADAPTER: adapter.dtype, TrainedIn.FLOAT32: DType.FLOAT32, TrainedIn.BASE: base_dtype}
    return dtypes[method.trained_in]


def _trained(model: ModelSpec, found: _Adapter) -> Counter[tuple[str, Shape]]:
    """How many trained tensors there are of each module name and shape."""
    tensors: Counter[tuple[str, Shape]] = Counter()
    for site in found.sites:
        module = site.path.rsplit(".", 1)[-1]
        for shape in found.method.each(site, found.options) if found.method.each else ():
            tensors[module, shape] += site.count
        tensors.update((module, shape) for shape in found.method.shared(site, found.options))
    tensors.update((MODEL, shape) for shape in found.method.together(found.sites, found.options))
    tensors.update((MODEL, shape) for shape in found.method.whole(model, found.options))
    return tensors


def _saved(model: ModelSpec, found: _Adapter) -> Counter[tuple[str, Shape]]:
    """How many tensors of each shape the file holds, frozen ones apart."""
    tensors = _trained(model, found)
    if found.method.saved_whole:
        return Counter((MODEL, shape) for shape in found.method.saved_whole(model, found.options))
    if found.method.saved is Saved.WITH_COPIES:
        for site in found.sites:
            for shape, number in Counter(found.method.shared(site, found.options)).items():
                tensors[site.path.rsplit(".", 1)[-1], shape] += site.count - number
    return tensors


def _frozen_whole_bytes(model: ModelSpec, found: _Adapter, adapter: AdapterSpec, base_dtype: DType) -> int:
    return _frozen_size(found.method.frozen_whole(found.sites, model, found.options), adapter, base_dtype)


def _frozen_size(tensors: Frozen, adapter: AdapterSpec, base_dtype: DType) -> int:
    size = {Kind.ADAPTER: adapter.dtype.bytes, Kind.BASE: base_dtype.bytes}
    size |= {Kind.FLOAT32: 4, Kind.INT64: 8, Kind.INT32: 4}
    return sum(numel * size[kind] for numel, kind in tensors)


@lru_cache(maxsize=1024)
def _resolve(model: ModelSpec, adapter: AdapterSpec) -> _Adapter:
    """Check the adapter against its type and the model."""
    method = method_of(adapter)
    options = options_of(adapter)
    if method.each is None:
        if adapter.target_modules:
            raise SpecError(f"{adapter.peft_type} has no target modules.", "Leave --target-modules out.")
        return _Adapter(method, options, (), ())
    refused = refused_modules(model, adapter)
    weights = targeted_weights(model, adapter.target_modules, method.roles, method.targets, refused)
    _check_support(model, adapter, method, weights)
    if any(weight.role in SPARSE for weight in weights):
        _check_plain(adapter, options)
    sites = tuple(_site(model, weight, options) for weight in weights)
    if method.rank and method.rank_within_matrix:
        of_rank = (w.role in _RANK_LIMITED and not is_router(model, w) for w in weights)
        limited = (site for site, limits in zip(sites, of_rank, strict=True) if limits)
        _check_rank(options[method.rank], method.rank, limited)
    return _Adapter(method, options, weights, sites)


def _check_support(model: ModelSpec, adapter: AdapterSpec, method: Method, weights: tuple[Weight, ...]) -> None:
    """Raise SpecError where PEFT has no implementation for the model's layers."""
    conv1d = any(w.conv1d for w in weights) and not method.conv1d
    subclass = any(w.role is Role.LINEAR and not (w.quantizable or w.read) for w in weights) and not method.subclasses
    unknown = adapter.peft_type == "ia3" and not model.family.targets.ia3_feedforward
    if conv1d or subclass or unknown:
        what = f"PEFT's {adapter.peft_type} does not support the layers of {model.model_type}."
        raise SpecError(what, "Use lora.")


def _check_plain(adapter: AdapterSpec, options: Options) -> None:
    """Raise SpecError for what PEFT cannot do to a parameter of a router or of experts.

    Source: lora.ParamWrapper in peft/tuners/lora/layer.py.
    """
    mica = options.get("init_lora_weights") == "mica"
    if adapter.dropout or options.get("use_dora") or options.get("lora_bias") or mica:
        raise SpecError(
            "PEFT adapts fused experts and their routers with plain LoRA only.",
            "Name other targets, or drop DoRA, lora_bias and dropout.",
        )


def _site(model: ModelSpec, weight: Weight, options: Options) -> Site:
    branches = 1
    if weight.role is Role.NORM:
        k = m = weight.shape[0]
    elif weight.role is Role.EMBEDDING:
        k, m = weight.shape
    elif weight.role is Role.EXPERTS:
        experts, m, k = weight.shape
        branches = experts * (2 if weight.parameter == "gate_up_proj" else 1)
    else:
        k, m = weight.in_features, weight.out_features
    bias = any(w.path == weight.path and w.parameter == "bias" for w in weights_of(model))
    feedforward = is_feedforward(weight.path, model, options)
    return Site(weight.path, k, m, weight.count, bias, feedforward, branches)


_RANK_LIMITED = frozenset({Role.LINEAR, Role.LM_HEAD, Role.EMBEDDING})
"""Not routers, whose other dimension is the number of experts: PEFT gives them the rank of the rest."""


def _check_rank(r: int | None, name: str, sites: Iterable[Site]) -> None:
    for site in sites:
        if r is not None and r > min(site.k, site.m):
            raise SpecError(
                f"{name}={r} is more than the rank of {site.path}, a {site.m} x {site.k} matrix.",
                f"Choose at most {min(site.k, site.m)}, or other target modules.",
            )


def _check_option(peft_type: str, name: str, value: Value, method: Method) -> None:
    if name not in method.options:
        known = ", ".join(method.options) or "none"
        near = did_you_mean(name, method.options)
        what = f"{peft_type} has no option {name!r} that decides its size. {near}".rstrip()
        raise SpecError(what, f"Its options: {known}.")
    if name in method.words:
        _check_word(peft_type, name, value, method.words[name])
        return
    default = method.options[name]
    wanted = int if default is None else type(default)
    usual = f"PEFT's default is {default}." if default is not None else "Leave it out, or give a whole number."
    if type(value) is not wanted and not (wanted is float and type(value) is int):
        raise SpecError(f"{name} of {peft_type} must be of type {wanted.__name__}, not {value!r}.", usual)
    whole = name == "weight_tying"  # 1: all modules share one vector
    if wanted is float and not (0 <= value < 1 or (whole and value == 1)):  # type: ignore[operator]
        most = "at most" if whole else "less than"
        raise SpecError(f"{name} must be at least 0 and {most} 1 (got {value}).", usual)
    if wanted is int and isinstance(value, int) and value < _least(name, default):
        raise SpecError(f"{name} must be at least {_least(name, default)} (got {value}).", usual)


def _check_word(peft_type: str, name: str, value: Value, words: tuple[Value, ...]) -> None:
    if value not in words:
        known = ", ".join(str(word).lower() if isinstance(word, bool) else str(word) for word in words)
        raise SpecError(f"{name} of {peft_type} cannot be {written(value)}.", f"Choose one of {known}.")


def _least(name: str, default: Value) -> int:
    """The least value of a whole number: those that default to 0 or -1 may be so, a rank may not be 0.

    Lily's router chooses among several Bs, VB-LoRA mixes the two best vectors.
    """
    if name in ("num_B", "num_vectors"):
        return 2
    return 1 if default is None or name == "r" or not isinstance(default, int) else min(default, 1)
