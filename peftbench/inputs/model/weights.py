"""The list of a model's weights, from which every byte count is a sum."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property, lru_cache
from math import prod

from peftbench.inputs.model.family import Layout, SplitExperts
from peftbench.inputs.model.spec import ModelSpec, OtherModel


class Role(str, Enum):
    """What a weight is for, which decides who quantizes, trains or adapts it."""

    EMBEDDING = "embedding"  # tokens and learned positions
    LINEAR = "linear"  # the matrix of an nn.Linear or Conv1D: what PEFT's all-linear targets
    BIAS = "bias"  # of a linear layer
    NORM = "norm"  # weights and biases of RMSNorm and LayerNorm
    LM_HEAD = "lm_head"  # matrix and bias of the output head, when not tied
    ROUTER = "router"  # a bare parameter in transformers 5, not an nn.Linear
    EXPERTS = "experts"  # fused three-dimensional parameters and their biases
    SINKS = "sinks"  # one learned attention logit a head (gpt-oss)

    __str__ = str.__str__


@dataclass(frozen=True)
class Weight:
    """One parameter and how often the model has it.

    `path` is the module's name within its layer ("self_attn.q_proj"), or within the model for weights outside
    the layers; `shape` is as PyTorch stores it; `layers` are the decoder layers that have it, None outside.
    """

    path: str
    parameter: str
    shape: tuple[int, ...]
    role: Role
    layers: tuple[int, ...] | None = None
    copies: int = 1
    """In a layer: its experts, of whose path the number is left out ("mlp.experts.up_proj")."""
    conv1d: bool = False
    """Stored as (in_features, out_features): transformers' Conv1D."""
    quantizable: bool = False
    """bitsandbytes replaces its module: `type(module) is nn.Linear` or Conv1D, and not the head.

    Source: replace_with_bnb_linear in transformers/integrations/bitsandbytes.py, version 5.
    """

    @cached_property
    def module(self) -> str:
        """The last part of the name, which `target_modules` usually gives: "q_proj"."""
        return self.path.rsplit(".", 1)[-1]

    @property
    def of_expert(self) -> bool:
        """Whether it is a layer of an expert that is a module of its own."""
        return self.copies > 1

    @cached_property
    def count(self) -> int:
        """How many tensors of this kind the model has."""
        return 1 if self.layers is None else self.copies * len(self.layers)

    @cached_property
    def numel(self) -> int:
        """Elements of one tensor, as torch's numel()."""
        return prod(self.shape)

    @cached_property
    def total(self) -> int:
        """Elements of all `count` tensors."""
        return self.numel * self.count

    @property
    def out_features(self) -> int:
        """Width of the output of a linear weight."""
        return self.shape[1] if self.conv1d else self.shape[0]

    @property
    def in_features(self) -> int:
        """Width of the input of a linear weight."""
        return self.shape[0] if self.conv1d else self.shape[1]


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
        *_attention(model, layout, every),
        *_feed_forward(model, layout, every),
        *(w for name in norm_names(model) for w in _norm(model, name, model.hidden_size, every)),
        *(_norm(model, layout.final_norm, model.hidden_size, None) if model.final_norm else ()),
        *_head(model),
    )


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


def _attention(model: ModelSpec, layout: Layout, layers: tuple[int, ...]) -> Iterator[Weight]:
    widths: tuple[int, ...] = (model.query_size, model.key_value_size, model.key_value_size)
    if len(layout.qkv) == 1:
        widths = (sum(widths),)
    for name, width in zip(layout.qkv, widths, strict=True):
        yield from _linear(layout.attention + name, width, model.hidden_size, model.qkv_bias, layout, layers)
    yield from _qk_norms(model, layout, layers)
    if model.attention_sinks:
        yield Weight(layout.attention.rstrip("."), "sinks", (model.num_attention_heads,), Role.SINKS, layers)
    output = layout.attention + layout.output
    yield from _linear(
        output, model.hidden_size, model.query_size, model.attention_output_bias, layout, layers
    )


def _qk_norms(model: ModelSpec, layout: Layout, layers: tuple[int, ...]) -> Iterator[Weight]:
    """Norms over one head's channels (Qwen3, Gemma 3, Phi) or over all of them (OLMo 2)."""
    sizes = {
        "none": (),
        "head": (model.head_dim, model.head_dim),
        "full": (model.query_size, model.key_value_size),
    }
    for name, size in zip(layout.qk_norms, sizes[model.qk_norm], strict=False):
        yield from _norm(model, layout.attention + name, size, layers)


def _feed_forward(model: ModelSpec, layout: Layout, layers: tuple[int, ...]) -> Iterator[Weight]:
    sparse = tuple(i for i in layers if i not in set(model.dense_layers)) if model.num_experts else ()
    dense = tuple(i for i in layers if i not in set(sparse))
    if dense:
        yield from _mlp(model, layout, dense)
    split = model.family.split_experts if model.split_experts else None
    if sparse:
        yield from _split_experts(model, split, sparse) if split else _experts(model, layout, sparse)


def _mlp(model: ModelSpec, layout: Layout, layers: tuple[int, ...]) -> Iterator[Weight]:
    hidden, inner = model.hidden_size, model.intermediate_size
    for name in layout.inner:
        width = 2 * inner if layout.fused_gate else inner
        yield from _linear(layout.mlp + name, width, hidden, model.mlp_bias, layout, layers)
    yield from _linear(layout.mlp + layout.down, hidden, inner, model.mlp_bias, layout, layers)


def _experts(model: ModelSpec, layout: Layout, layers: tuple[int, ...]) -> Iterator[Weight]:
    """Router and fused experts, which have biases where an MLP would."""
    experts, hidden, inner = model.num_experts, model.hidden_size, model.moe_intermediate_size
    shapes = {"gate_up_proj": (experts, 2 * inner, hidden), "down_proj": (experts, hidden, inner)}
    yield Weight(layout.router, "weight", (experts, hidden), Role.ROUTER, layers)
    if model.mlp_bias:
        yield Weight(layout.router, "bias", (experts,), Role.ROUTER, layers)
    for name, (_, out, into) in shapes.items():
        stored = (experts, into, out) if layout.transposed_experts else (experts, out, into)
        yield Weight("mlp.experts", name, stored, Role.EXPERTS, layers)
        if model.mlp_bias:
            yield Weight("mlp.experts", f"{name}_bias", (experts, out), Role.EXPERTS, layers)


def _split_experts(model: ModelSpec, names: SplitExperts, layers: tuple[int, ...]) -> Iterator[Weight]:
    """Router and experts as linear layers, of which bitsandbytes quantizes each. No such family has biases in them."""
    experts, hidden, inner = model.num_experts, model.hidden_size, model.moe_intermediate_size
    yield Weight(names.router, "weight", (experts, hidden), Role.LINEAR, layers, quantizable=True)
    for name in (*names.inner, names.down):
        shape = (hidden, inner) if name == names.down else (inner, hidden)
        path = f"{names.block}experts.{name}"
        yield Weight(path, "weight", shape, Role.LINEAR, layers, experts, quantizable=True)


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
