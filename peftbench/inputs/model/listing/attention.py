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
    query_size = 2 * part.query_size if part.output_gate else part.query_size
    widths: tuple[int, ...] = (query_size, part.key_value_size, part.key_value_size)
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
    """Norms over one head's channels, shared by all (Qwen3) or not (Cohere, StableLM), or over all heads (OLMo 2)."""
    layout = model.family.layout
    for name, heads in zip(layout.qk_norms, (part.heads, part.key_value_heads), strict=True):
        path = layout.attention + name
        if model.qk_norm == "each" and layout.qk_norm_list:
            for head in range(heads):  # without the bias that the other norms have
                yield Weight(f"{path}.{layout.qk_norm_list}.{head}", "weight", (part.head_dim,), Role.NORM, layers)
        elif model.qk_norm != "none":
            shapes = {"head": (part.head_dim,), "each": (heads, part.head_dim), "full": (heads * part.head_dim,)}
            yield from norm_weights(model, path, shapes[model.qk_norm], layers)
