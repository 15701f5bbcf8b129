"""A gated delta net on the tape, as transformers runs it without causal-conv1d and flash-linear-attention.

Local variables are those of transformers' code, because they decide how long a tensor lives.
Source: Qwen3_5GatedDeltaNet in modeling_qwen3_5.py, Qwen3NextGatedDeltaNet in modeling_qwen3_next.py.
"""

from __future__ import annotations

from typing import NamedTuple

from peftbench.estimate.forward.mixers.convolution import causal_convolution, masked
from peftbench.estimate.forward.mixers.delta_rule import chunk_gated_delta_rule
from peftbench.estimate.peft_forward.dispatch import linear
from peftbench.estimate.tape.autograd import FLOAT32, Tensor
from peftbench.estimate.tape.modules import Context, normalize, times_weight, trains_norm


def delta_net(c: Context, hidden_states: Tensor) -> Tensor:
    """Queries, keys and values through a convolution and the delta rule; its output, normed, is gated."""
    part, names, tape = c.delta_net, c.model.family.layout.delta, c.tape
    normed = masked(c, hidden_states)
    project = _projected if names.gate else _unfused
    mixed_qkv, z, b, a, parts, _fused = project(c, normed)
    mixed_qkv = tape.unary(causal_convolution(c, mixed_qkv, part.kernel, bias=False), "input")
    parts = tape.split(mixed_qkv, (part.key_size, part.key_size, part.value_size))
    query, key, value = parts
    beta = tape.unary(b, "output")
    g = _decay(c, a)
    core_attn_out = chunk_gated_delta_rule(c, query, key, value, g, beta)
    core_attn_out = _gated_norm(c, core_attn_out, z)
    return linear(c, names.block + names.output, core_attn_out, c.model.hidden_size)


class _Projected(NamedTuple):
    """What the stream is projected to, and what lives as long as the function or until the convolution is over."""

    mixed_qkv: Tensor
    z: Tensor
    b: Tensor
    a: Tensor
    parts: tuple[Tensor, ...] = ()
    fused: tuple[Tensor, ...] = ()


def _projected(c: Context, x: Tensor) -> _Projected:
    """Each from a matrix of its own (Qwen3.5)."""
    part, names = c.delta_net, c.model.family.layout.delta
    mixed_qkv = linear(c, names.block + names.qkv[0], x, part.convolved_size)
    z = linear(c, names.block + names.gate, x, part.value_size)
    b, a = (linear(c, names.block + name, x, part.value_heads) for name in names.rates)
    return _Projected(mixed_qkv, z, b, a)


def _unfused(c: Context, x: Tensor) -> _Projected:
    """From two matrices, by key heads: what lies apart between them is copied (Qwen3-Next)."""
    part, names, tape = c.delta_net, c.model.family.layout.delta, c.tape
    qkvz = linear(c, names.block + names.qkv[0], x, part.convolved_size + part.value_size)
    ba = linear(c, names.block + names.rates[0], x, 2 * part.value_heads)
    *parts, z = tape.split(qkvz, (part.key_size, part.key_size, part.value_size, part.value_size))
    b, a = tape.split(ba, (part.value_heads, part.value_heads))
    if part.key_heads > 1:
        parts = [tape.copy(x) for x in parts]
        if part.value_heads != part.key_heads:
            z, b, a = (tape.copy(x) for x in (z, b, a))
    return _Projected(tape.concatenate(parts), z, b, a, tuple(parts), (qkvz, ba))


def _decay(c: Context, a: Tensor) -> Tensor:
    """-A_log.float().exp() * softplus(a.float() + dt_bias): one number a head, in float32."""
    tape, trained = c.tape, c.full
    gradient = a.width * c.unquantized_itemsize if trained else 0
    raised = tape.tensor(a.width, FLOAT32, a.needs_grad or trained)
    wide = tape.cast(a, FLOAT32)
    if raised.needs_grad:
        tape.record((raised,), (wide,), parameter_gradients=gradient)
    del wide
    softplus = tape.unary(raised, "input")
    out = tape.tensor(a.width, FLOAT32, raised.needs_grad)
    if out.needs_grad:
        saved = (softplus,) if trained else ()
        tape.record((out,), (softplus,), saved, parameter_gradients=gradient, saves_constant=True)
    return out


def _gated_norm(c: Context, hidden_states: Tensor, gate: Tensor) -> Tensor:
    """RMSNormGated: the norm of each head's channels, times silu(gate) in float32."""
    tape, names, heads = c.tape, c.model.family.layout.delta, c.delta_net.value_heads
    normed = normalize(tape, tape.cast(hidden_states, FLOAT32), heads)
    normed = tape.cast(normed, hidden_states.itemsize)
    normed = times_weight(c, normed, c.norm_itemsize, trains_norm(c, names.block + names.norm))
    normed = tape.multiply(normed, tape.unary(tape.cast(gate, FLOAT32), "input"))
    return tape.cast(normed, hidden_states.itemsize)
