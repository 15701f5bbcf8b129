"""Attention of a layer on the tape, from its input to its output projection.

Local variables are those of transformers' code, because they decide how long a tensor lives.
"""

from __future__ import annotations

from peftbench.estimate.forward.generations import keeps_fused_cache
from peftbench.estimate.forward.mixers.attention import (
    attention,
    concatenates_rotated,
    keep_in_cache,
    rotate,
    scale_by_position,
)
from peftbench.estimate.peft_forward.dispatch import linear
from peftbench.estimate.tape.autograd import Tensor
from peftbench.estimate.tape.modules import Context, norm
from peftbench.inputs.model.parts import Attention


def self_attention(c: Context, hidden_states: Tensor) -> Tensor:
    """Queries, keys and values, rotated, through a kernel and the output projection."""
    query, key, value, gate = _project(c, hidden_states)
    if c.attention.rotary_dim:
        query, key = rotate(c, query), rotate(c, key)
    if c.model.family.norms_rotated:
        query, key = _normed(c, query, 0), _normed(c, key, 1)
    query = scale_by_position(c, query)
    key, value = keep_in_cache(c, key, value)
    output = attention(c, query, key, value)
    if c.attention_kernel != "eager" and concatenates_rotated(c):
        # The output takes the layout of concatenated queries, head by head, and merging heads copies it.
        output = c.tape.copy(output)
    if gate is not None:
        output = c.tape.multiply(output, c.tape.unary(gate, "output"))
    layout = c.model.family.layout
    return linear(c, layout.attention + layout.output, output, c.model.hidden_size, c.model.attention_output_bias)


def _part(c: Context) -> Attention:
    part = c.attention
    assert isinstance(part, Attention)
    return part


def _project(c: Context, hidden_states: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Queries, keys and values, from one matrix or three, and a gate of the output where there is one."""
    model, part, layout = c.model, _part(c), c.model.family.layout
    names = [layout.attention + name for name in layout.qkv]
    if len(names) == 1:
        return *_project_fused(c, hidden_states, names[0]), None
    early = not model.family.norms_rotated
    query, gate = _query(c, hidden_states, names[0])
    if model.family.scales_query:
        query = c.tape.scale(query)
    query = _normed(c, query, 0) if early else query
    key = _clipped(c, linear(c, names[1], hidden_states, part.key_value_size, model.qkv_bias))
    key = _normed(c, key, 1) if early else key
    key = c.tape.scale(key) if "key" in model.family.scales else key
    value = _clipped(c, linear(c, names[2], hidden_states, part.key_value_size, model.qkv_bias))
    return query, key, value, gate


def _query(c: Context, hidden_states: Tensor, name: str) -> tuple[Tensor, Tensor | None]:
    """Queries, and the gate beside them in each head, which is copied for its channels lie apart."""
    size, bias = _part(c).query_size, c.model.qkv_bias
    if not _part(c).output_gate:
        return _clipped(c, linear(c, name, hidden_states, size, bias)), None
    query, gate = c.tape.split(linear(c, name, hidden_states, 2 * size, bias), (size, size))
    return query, c.tape.copy(gate)


def _normed(c: Context, x: Tensor, which: int) -> Tensor:
    """Queries (0) or keys (1) through their norm, where there is one; apart for each head they are concatenated."""
    layout, heads = c.model.family.layout, x.width // _part(c).head_dim
    if c.model.qk_norm == "none":
        return x
    normed = norm(c, x, layout.qk_norms[which], 1 if c.model.qk_norm == "full" else heads)
    return c.tape.concatenate((normed,)) if layout.qk_norm_list else normed


def _clipped(c: Context, x: Tensor) -> Tensor:
    """x.clamp_(…): its backward needs what was there before, of which autograd keeps a copy."""
    if not c.model.clips_qkv:
        return x
    before = c.tape.tensor(x.width, x.itemsize)
    out = c.tape.view(x, x.width)
    if x.needs_grad:
        c.tape.record((out,), (x,), (before,))
    return out


def _project_fused(c: Context, hidden_states: Tensor, name: str) -> tuple[Tensor, Tensor, Tensor]:
    model, part, tape = c.model, _part(c), c.tape
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
