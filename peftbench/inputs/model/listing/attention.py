"""The weights of attention."""

from __future__ import annotations

from collections.abc import Iterator

from peftbench.inputs.model.listing.modules import linear_weights, norm_weights
from peftbench.inputs.model.parts import Attention
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.model.weight import Role, Weight


def attention_weights(model: ModelSpec, part: Attention, layers: tuple[int, ...]) -> Iterator[Weight]:
    """Projections, norms of queries and keys, sinks."""
    layout = model.family.layout
    widths: tuple[int, ...] = (part.query_size, part.key_value_size, part.key_value_size)
    if len(layout.qkv) == 1:
        widths = (sum(widths),)
    for name, width in zip(layout.qkv, widths, strict=True):
        yield from linear_weights(layout.attention + name, width, model.hidden_size, model.qkv_bias, layout, layers)
    yield from _qk_norms(model, part, layers)
    if model.attention_sinks:
        yield Weight(layout.attention.rstrip("."), "sinks", (part.heads,), Role.SINKS, layers)
    output = layout.attention + layout.output
    yield from linear_weights(output, model.hidden_size, part.query_size, model.attention_output_bias, layout, layers)


def _qk_norms(model: ModelSpec, part: Attention, layers: tuple[int, ...]) -> Iterator[Weight]:
    """Norms over one head's channels (Qwen3, Gemma 3, Phi) or over all of them (OLMo 2)."""
    sizes = {"none": (), "head": (part.head_dim, part.head_dim), "full": (part.query_size, part.key_value_size)}
    layout = model.family.layout
    for name, size in zip(layout.qk_norms, sizes[model.qk_norm], strict=False):
        yield from norm_weights(model, layout.attention + name, size, layers)
