"""The list of a model's weights, from which every byte count is a sum."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, TypeVar

from peftbench.inputs.model.family import Layout
from peftbench.inputs.model.listing.attention import attention_weights
from peftbench.inputs.model.listing.delta_net import delta_net_weights
from peftbench.inputs.model.listing.feed_forward import expert_weights, mlp_weights
from peftbench.inputs.model.listing.latent_attention import latent_weights
from peftbench.inputs.model.listing.modules import linear_weights, norm_weights
from peftbench.inputs.model.listing.recurrent import hybrid_weights, short_conv_weights, state_space_weights
from peftbench.inputs.model.parts import (
    Attention,
    DeltaNet,
    Experts,
    FeedForward,
    Hybrid,
    LatentAttention,
    Mixer,
    Mlp,
    ShortConv,
    StateSpace,
)
from peftbench.inputs.model.spec import ModelSpec, OtherModel
from peftbench.inputs.model.weight import Role, Weight

_Part = TypeVar("_Part")
_List = Callable[[ModelSpec, Any, tuple[int, ...]], Iterator[Weight]]

MIXERS: dict[type[Mixer], _List] = {
    Attention: attention_weights, LatentAttention: latent_weights, ShortConv: short_conv_weights,
    StateSpace: state_space_weights, Hybrid: hybrid_weights, DeltaNet: delta_net_weights,
}  # fmt: skip
NETWORKS: dict[type[FeedForward], _List] = {Mlp: mlp_weights, Experts: expert_weights}
"""What lists the weights of each kind of part, given the layers that have it."""


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
    """Every parameter of the model, matrices in the order of named_parameters(): embeddings, what is in layers part by
    part, norm and head. A tied head is not listed again."""
    layout = model.family.layout
    every = tuple(range(model.num_hidden_layers))
    parts = (_of_mixers(model), _of_networks(model))
    return (
        *_as_made(layout, _embeddings(model, layout)),
        *(weight for part in (parts[::-1] if layout.network_first else parts) for weight in part),
        *(w for name in norm_names(model) for w in norm_weights(model, name, (model.hidden_size,), every)),
        *(norm_weights(model, layout.final_norm, (model.hidden_size,), None) if model.final_norm else ()),
        *_head(model),
    )


def _of_mixers(model: ModelSpec) -> Iterator[Weight]:
    for part, layers in mixers_of(model).items():
        yield from _as_made(model.family.layout, MIXERS[type(part)](model, part, layers))


def _of_networks(model: ModelSpec) -> Iterator[Weight]:
    for part, layers in networks_of(model).items():
        yield from NETWORKS[type(part)](model, part, layers)


def _as_made(layout: Layout, weights: Iterator[Weight]) -> Iterator[Weight]:
    """Those of a part, of which some modules were made in another order than they run in."""
    listed = list(weights)
    moved = iter(sorted((w for w in listed if w.module in layout.made), key=lambda w: layout.made.index(w.module)))
    return (next(moved) if weight.module in layout.made else weight for weight in listed)


def mixers_of(model: ModelSpec) -> dict[Mixer, tuple[int, ...]]:
    """The layers that have each mixer, as far as its weights go."""
    return _layers_by([layer.mixer.stored if layer.mixer else None for layer in model.layers])


def networks_of(model: ModelSpec) -> dict[FeedForward, tuple[int, ...]]:
    """The layers that have each feed-forward network."""
    return _layers_by([layer.feed_forward for layer in model.layers])


def _layers_by(parts: Sequence[_Part | None]) -> dict[_Part, tuple[int, ...]]:
    """Numbers of layers by part; a layer may lack it."""
    found: dict[_Part, list[int]] = {}
    for number, part in enumerate(parts):
        if part is not None:
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
        yield from linear_weights("project_in", model.hidden_size, model.embedding_size, False, layout, None)
        yield from linear_weights("project_out", model.embedding_size, model.hidden_size, False, layout, None)


def is_router(model: ModelSpec, weight: Weight) -> bool:
    """Whether it weighs experts or the network beside them: a bare parameter, or a linear layer of a few rows."""
    layout, split = model.family.layout, model.family.split_experts if model.split_experts else None
    return weight.role is Role.ROUTER or weight.path in (layout.router, layout.shared_gate, split and split.router)


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
