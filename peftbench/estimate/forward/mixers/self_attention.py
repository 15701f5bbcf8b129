"""Attention of a layer on the tape, from its input to its output projection.

Local variables are those of transformers' code, because they decide how long a tensor lives.
"""

from __future__ import annotations

from peftbench.estimate.forward.generations import keeps_fused_cache
from peftbench.estimate.forward.mixers.attention import attention, concatenates_rotated, keep_in_cache, rotate
from peftbench.estimate.peft_forward.dispatch import linear
from peftbench.estimate.tape.autograd import Tensor
from peftbench.estimate.tape.modules import Context, norm


def self_attention(c: Context, hidden_states: Tensor) -> Tensor:
    """Queries, keys and values, rotated, through a kernel and the output projection."""
    query, key, value = _project(c, hidden_states)
    if c.attention.rotary_dim:
        query, key = rotate(c, query), rotate(c, key)
    key, value = keep_in_cache(c, key, value)
    output = attention(c, query, key, value)
    if c.attention_kernel != "eager" and concatenates_rotated(c):
        # The output takes the layout of concatenated queries, head by head, and merging heads copies it.
        output = c.tape.copy(output)
    layout = c.model.family.layout
    return linear(c, layout.attention + layout.output, output, c.model.hidden_size, c.model.attention_output_bias)


def _project(c: Context, hidden_states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, from one matrix or three."""
    model, part, layout = c.model, c.attention, c.model.family.layout
    names = [layout.attention + name for name in layout.qkv]
    if len(names) == 1:
        return _project_fused(c, hidden_states, names[0])
    query = linear(c, names[0], hidden_states, part.query_size, model.qkv_bias)
    if model.family.scales_query:
        query = c.tape.scale(query)
    if model.qk_norm != "none":
        query = norm(c, query, layout.qk_norms[0], part.heads if model.qk_norm == "head" else 1)
    key = linear(c, names[1], hidden_states, part.key_value_size, model.qkv_bias)
    if model.qk_norm != "none":
        key = norm(c, key, layout.qk_norms[1], part.key_value_heads if model.qk_norm == "head" else 1)
    value = linear(c, names[2], hidden_states, part.key_value_size, model.qkv_bias)
    return query, key, value


def _project_fused(c: Context, hidden_states: Tensor, name: str) -> tuple[Tensor, Tensor, Tensor]:
    model, part, tape = c.model, c.attention, c.tape
    widths = (part.query_size, part.key_value_size, part.key_value_size)
    fused = linear(c, name, hidden_states, sum(widths), model.qkv_bias)
    if keeps_fused_cache(c.model, c.training) and fused.storage is not None:
        c.cache.append(fused.storage)
    if model.family.slices_qkv:
        query, key, value = (tape.slice(fused, width) for width in widths)
    else:
        query, key, value = tape.split(fused, widths)
    if model.family.copies_key_heads and 1 < part.key_value_heads < part.heads:
        key, value = (tape.copy(tape.copy(x), part.query_size) for x in (key, value))  # indexed, then broadcast
    return query, key, value
