"""A gated delta net on the tape, as transformers runs it without causal-conv1d and flash-linear-attention.

Local variables are those of transformers' code, because they decide how long a tensor lives.
Source: Qwen3_5GatedDeltaNet in modeling_qwen3_5.py.
"""

from __future__ import annotations

from peftbench.estimate.forward.mixers.convolution import causal_convolution, masked
from peftbench.estimate.forward.mixers.delta_rule import chunk_gated_delta_rule
from peftbench.estimate.peft_forward.dispatch import linear
from peftbench.estimate.tape.autograd import FLOAT32, Tensor
from peftbench.estimate.tape.modules import Context, normalize, times_weight, trains_norm


def delta_net(c: Context, hidden_states: Tensor) -> Tensor:
    """Queries, keys and values through a convolution and the delta rule; its output, normed, is gated."""
    part, names, tape = c.delta_net, c.model.family.layout.delta, c.tape
    normed = masked(c, hidden_states)
    mixed_qkv = linear(c, names.block + names.qkv[0], normed, part.convolved_size)
    z = linear(c, names.block + names.gate, normed, part.value_size)
    b, a = (linear(c, names.block + name, normed, part.value_heads) for name in names.rates)
    mixed_qkv = tape.unary(causal_convolution(c, mixed_qkv, part.kernel, bias=False), "input")
    query, key, value = tape.split(mixed_qkv, (part.key_size, part.key_size, part.value_size))
    beta = tape.unary(b, "output")
    g = _decay(c, a)
    core_attn_out = chunk_gated_delta_rule(c, query, key, value, g, beta)
    core_attn_out = _gated_norm(c, core_attn_out, z)
    return linear(c, names.block + names.output, core_attn_out, c.model.hidden_size)


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
