"""The list of a model's weights, from which every byte count is a sum."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TypeVar

from peftbench.inputs.model.family import Layout, SplitExperts
from peftbench.inputs.model.parts import Attention, Experts, FeedForward, Mixer, Mlp
from peftbench.inputs.model.spec import ModelSpec, OtherModel
from peftbench.inputs.model.weight import Role, Weight

_Part = TypeVar("_Part")


def built_by(model: ModelSpec, transformers: str) -> ModelSpec:
    """The model with the modules that this generation of transformers gives it: experts apart before 5."""
    if transformers == "5" or not model.num_experts or model.split_experts:
        return model
    return _with_split_experts(model)


@lru_cache(maxsize=64)
def _with_split_experts(model: ModelSpec) -> ModelSpec:
    return replace(model, split_experts=True) if model.family.split_experts else model


@lru_cache(maxsize=256)
def weights_of(model: ModelSpec) -> tuple[Weight, ...]:
    """Every parameter of the model, in the order of the forward pass; a tied head is not listed again."""
    layout = model.family.layout
    every = tuple(range(model.num_hidden_layers))
    return (
        *_embeddings(model, layout),
        *(w for mixer, layers in mixers_of(model).items() for w in _attention(model, mixer, layers)),
        *(w for part, layers in feed_forwards_of(model).items() for w in _feed_forward(model, part, layers)),
        *(w for name in norm_names(model) for w in _norm(model, name, model.hidden_size, every)),
        *(_norm(model, layout.final_norm, model.hidden_size, None) if model.final_norm else ()),
        *_head(model),
    )


def mixers_of(model: ModelSpec) -> dict[Mixer, tuple[int, ...]]:
    """The layers that have each mixer, as far as its weights go."""
    return _layers_by([layer.mixer.stored for layer in model.layers])


def feed_forwards_of(model: ModelSpec) -> dict[FeedForward, tuple[int, ...]]:
    """The layers that have each feed-forward network."""
    return _layers_by([layer.feed_forward for layer in model.layers])


def _layers_by(parts: Sequence[_Part]) -> dict[_Part, tuple[int, ...]]:
    """Numbers of layers by part."""
    found: dict[_Part, list[int]] = {}
    for number, part in enumerate(parts):
        found.setdefault(part, []).append(number)
    return {part: tuple(numbers) for part, numbers in found.items()}


@lru_cache(maxsize=256)
def num_parameters(model: ModelSpec | OtherModel) -> int:
    """The exact number of parameters: sum(p.numel() for p in model.parameters())."""
    if isinstance(model, OtherModel):
        return model.num_parameters
    return sum(weight.total for weight in weights_of(model))


@lru_cache(maxsize=256)
def linear_modules(model: ModelSpec) -> tuple[str, ...]:
    """The names that PEFT's target_modules="all-linear" reaches: every linear layer but the output head."""
    return tuple(dict.fromkeys(w.module for w in weights_of(model) if w.role is Role.LINEAR))


def _embeddings(model: ModelSpec, layout: Layout) -> Iterator[Weight]:
    yield Weight(layout.embedding, "weight", (model.vocab_size, model.embedding_size), Role.EMBEDDING)
    if model.learned_positions:
        yield Weight(layout.positions, "weight", (model.learned_positions, model.hidden_size), Role.EMBEDDING)
    if model.embedding_size != model.hidden_size:
        yield from _linear("project_in", model.hidden_size, model.embedding_size, False, layout, None)
        yield from _linear("project_out", model.embedding_size, model.hidden_size, False, layout, None)


def _attention(model: ModelSpec, part: Attention, layers: tuple[int, ...]) -> Iterator[Weight]:
    layout = model.family.layout
    widths: tuple[int, ...] = (part.query_size, part.key_value_size, part.key_value_size)
    if len(layout.qkv) == 1:
        widths = (sum(widths),)
    for name, width in zip(layout.qkv, widths, strict=True):
        yield from _linear(layout.attention + name, width, model.hidden_size, model.qkv_bias, layout, layers)
    yield from _qk_norms(model, part, layers)
    if model.attention_sinks:
        yield Weight(layout.attention.rstrip("."), "sinks", (part.heads,), Role.SINKS, layers)
    output = layout.attention + layout.output
    yield from _linear(output, model.hidden_size, part.query_size, model.attention_output_bias, layout, layers)


def _qk_norms(model: ModelSpec, part: Attention, layers: tuple[int, ...]) -> Iterator[Weight]:
    """Norms over one head's channels (Qwen3, Gemma 3, Phi) or over all of them (OLMo 2)."""
    sizes = {"none": (), "head": (part.head_dim, part.head_dim), "full": (part.query_size, part.key_value_size)}
    layout = model.family.layout
    for name, size in zip(layout.qk_norms, sizes[model.qk_norm], strict=False):
        yield from _norm(model, layout.attention + name, size, layers)


def _feed_forward(model: ModelSpec, part: FeedForward, layers: tuple[int, ...]) -> Iterator[Weight]:
    if isinstance(part, Mlp):
        return _mlp(model, part, layers)
    split = model.family.split_experts if model.split_experts else None
    return _split_experts(model, part, split, layers) if split else _experts(model, part, layers)


def _mlp(model: ModelSpec, part: Mlp, layers: tuple[int, ...]) -> Iterator[Weight]:
    hidden, inner, layout = model.hidden_size, part.inner, model.family.layout
    for name in layout.inner:
        width = 2 * inner if layout.fused_gate else inner
        yield from _linear(layout.mlp + name, width, hidden, model.mlp_bias, layout, layers)
    yield from _linear(layout.mlp + layout.down, hidden, inner, model.mlp_bias, layout, layers)


def _experts(model: ModelSpec, part: Experts, layers: tuple[int, ...]) -> Iterator[Weight]:
    """Router and fused experts, which have biases where an MLP would."""
    experts, hidden, layout = part.number, model.hidden_size, model.family.layout
    shapes = {"gate_up_proj": (2 * part.inner, hidden), "down_proj": (hidden, part.inner)}
    yield Weight(layout.router, "weight", (experts, hidden), Role.ROUTER, layers)
    if model.mlp_bias:
        yield Weight(layout.router, "bias", (experts,), Role.ROUTER, layers)
    for name, (out, into) in shapes.items():
        stored = (experts, into, out) if layout.transposed_experts else (experts, out, into)
        yield Weight("mlp.experts", name, stored, Role.EXPERTS, layers)
        if model.mlp_bias:
            yield Weight("mlp.experts", f"{name}_bias", (experts, out), Role.EXPERTS, layers)


def _split_experts(
    model: ModelSpec, part: Experts, names: SplitExperts, layers: tuple[int, ...]
) -> Iterator[Weight]:
    """Router and experts as linear layers, of which bitsandbytes quantizes each. No such family has biases in them."""
    hidden, inner = model.hidden_size, part.inner
    yield Weight(names.router, "weight", (part.number, hidden), Role.LINEAR, layers, quantizable=True)
    for name in (*names.inner, names.down):
        shape = (hidden, inner) if name == names.down else (inner, hidden)
        path = f"{names.block}experts.{name}"
        yield Weight(path, "weight", shape, Role.LINEAR, layers, part.number, quantizable=True)


def is_router(model: ModelSpec, weight: Weight) -> bool:
    """Whether it chooses experts: a bare parameter, or the linear layer of transformers before 5."""
    split = model.family.split_experts if model.split_experts else None
    return weight.role is Role.ROUTER or (split is not None and weight.path == split.router)


def norm_names(model: ModelSpec) -> tuple[str, ...]:
    """The names of a layer's norms over the hidden size, in the order of the forward pass."""
    layout = model.family.layout
    renamed = layout.parallel_norms if model.parallel_attention else {}
    return renamed.get(model.norms_per_layer, layout.norms)


def _head(model: ModelSpec) -> Iterator[Weight]:
    """A tied head shares the embedding's matrix but not its bias."""
    if not model.tie_word_embeddings:
        yield Weight("lm_head", "weight", (model.vocab_size, model.embedding_size), Role.LM_HEAD)
    if model.lm_head_bias:
        yield Weight("lm_head", "bias", (model.vocab_size,), Role.LM_HEAD)


def _linear(
    path: str, out: int, into: int, bias: bool, layout: Layout, layers: tuple[int, ...] | None
) -> Iterator[Weight]:
    shape = (into, out) if layout.conv1d else (out, into)
    yield Weight(path, "weight", shape, Role.LINEAR, layers, conv1d=layout.conv1d, quantizable=layout.plain_linear)
    if bias:
        yield Weight(path, "bias", (out,), Role.BIAS, layers)


def _norm(model: ModelSpec, path: str, size: int, layers: tuple[int, ...] | None) -> Iterator[Weight]:
    yield Weight(path, "weight", (size,), Role.NORM, layers)
    if model.family.norm == "layer_norm":
        yield Weight(path, "bias", (size,), Role.NORM, layers)
