"""Mamba 2 on the tape, as transformers computes it in torch, without the kernels of mamba-ssm and causal-conv1d.

The scan is a sum over chunks of the sequence: within a chunk every token meets every one before it, in a matrix of
scores a head; a state passes from chunk to chunk. Everything is float32, and sequences are padded to whole chunks.
Local variables are those of transformers' code, because they decide how long a tensor lives. Left out is the decay
from chunk to chunk, of some bytes a sequence. Source: mamba2_chunk_scan in modeling_mamba2.py of transformers 5.
"""

from __future__ import annotations

from peftbench.estimate.forward.mixers.convolution import causal_convolution, masked
from peftbench.estimate.peft_forward.dispatch import linear, read_linear
from peftbench.estimate.tape.autograd import FLOAT32, Scratch, Tape, Tensor
from peftbench.estimate.tape.modules import Context, normalize, times_weight, trains_norm
from peftbench.inputs.model.parts import StateSpace


def state_space(c: Context, hidden_states: Tensor) -> Tensor:
    """One projection, a convolution of most of it, the scan, a gate with or without a norm, the output."""
    part, tape, path = c.state_space, c.tape, c.model.family.layout.recurrent
    stream = masked(c, hidden_states)
    scales = "state_space" in c.model.family.scales
    if scales:
        stream = tape.scale(stream)
    projected = linear(c, f"{path}in_proj", stream, part.inner + part.conv_width + part.heads, part.bias)
    if scales:
        projected = tape.new((projected,), projected.width, projected.itemsize, saves_constant=True)
    gate, conved, dt = tape.split(projected, (part.inner, part.conv_width, part.heads))
    conved = masked(c, causal_convolution(c, conved, part.kernel, part.conv_bias, activated=True))
    stream, B, C = tape.split(conved, (part.inner, part.groups * part.state, part.groups * part.state))
    scanned = _chunk_scan(c, stream, dt, B, C)
    scanned = _gated(c, scanned, gate)
    return read_linear(
        c, f"{path}out_proj", tape.cast(scanned, hidden_states.itemsize), c.model.hidden_size, part.output_bias
    )  # fmt: skip


def _gated(c: Context, scanned: Tensor, gate: Tensor) -> Tensor:
    """The scan's output times silu(gate), normed in groups of channels before or after, or not at all."""
    part, tape = c.state_space, c.tape
    if part.norm == "none":
        return tape.multiply(scanned, tape.unary(gate, "input"))
    normed = scanned
    if part.norm == "gate first":
        normed = tape.multiply(normed, tape.unary(tape.cast(gate, FLOAT32), "input"))
    name = f"{c.model.family.layout.recurrent}norm"
    normed = times_weight(c, normalize(tape, normed, part.groups), c.norm_itemsize, trains_norm(c, name))
    if part.norm == "gate last":
        normed = tape.multiply(normed, tape.unary(tape.cast(gate, FLOAT32), "input"))
    return normed


# ── the scan ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _chunk_scan(c: Context, x: Tensor, dt: Tensor, B: Tensor, C: Tensor) -> Tensor:
    tape, part = c.tape, c.state_space
    wide = part.heads * part.state
    steps = _steps(c, dt)
    hidden_states = tape.cast(x, FLOAT32)
    B_heads = tape.copy(tape.cast(B, FLOAT32), wide)
    C_heads = tape.copy(tape.cast(C, FLOAT32), wide)
    D_residual = _skipped(c, _padded(c, hidden_states))
    hidden_states = _times(tape, hidden_states, tape.cast(steps, FLOAT32))
    A = tape.new((tape.cast(steps, FLOAT32),), part.heads, FLOAT32, saves_constant=True)
    hidden_states, A, B_heads, C_heads = [_padded(c, each) for each in (hidden_states, A, B_heads, C_heads)]
    A_cumsum = _summed(tape, A)
    L = _decays(c, A)
    G = _product(tape, tape.copy(C_heads), tape.copy(B_heads), L.width)
    M = tape.multiply(G, L)
    Y_diag = _product(tape, M, tape.copy(hidden_states), hidden_states.width)
    decay_states = tape.unary(tape.scale(A_cumsum), "output")
    B_decay = _times(tape, B_heads, decay_states)
    states = _product(tape, tape.copy(B_decay), tape.copy(hidden_states), _of_chunks(c, 0))
    states = _passed_on(c, states)
    state_decay_out = tape.unary(A_cumsum, "output")
    C_times_states = _product(tape, tape.copy(C_heads), tape.copy(states), hidden_states.width)
    Y_off = _times(tape, C_times_states, state_decay_out)
    output = tape.copy(tape.add(Y_diag, Y_off))
    output = tape.add(output, D_residual)
    return tape.slice(output, x.width) if output.width > x.width else output


def _steps(c: Context, dt: Tensor) -> Tensor:
    """clamp(softplus(dt + bias)), which autocast computes in float32."""
    tape = c.tape
    biased = tape.new((dt,), dt.width, dt.itemsize, aliases=(dt.key,))
    if tape.autocast is not None:
        biased = tape.cast(biased, FLOAT32)
    return tape.unary(tape.unary(biased, "input"), "input")


def _skipped(c: Context, x: Tensor) -> Tensor:
    """D * x: what passes the scan by."""
    if not c.full:
        return c.tape.new((x,), x.width, FLOAT32, saves_constant=True)
    out = c.tape.output(x.width, FLOAT32, True)
    gradients = 3 * c.state_space.heads * c.weight_itemsize  # of dt_bias and A_log too
    c.tape.record((out,), (x,), (x,), scratch=(_full(c.tape, x),), parameter_gradients=gradients)
    return out


def _decays(c: Context, A: Tensor) -> Tensor:
    """exp(segment_sum(A)): the decay between each two tokens of a chunk, for each head."""
    tape, part = c.tape, c.state_space
    width = _share(c, part.heads * part.chunk**2, 0)
    expanded = tape.new((A,), width, FLOAT32, scratch=((tape.part, width * FLOAT32, 0),))
    summed = _summed(tape, expanded)
    del expanded
    summed = tape.scale(summed)  # masked
    return tape.unary(summed, "output")


def _passed_on(c: Context, states: Tensor) -> Tensor:
    """The state that each chunk starts with, out of those of the chunks before it and one of zeros."""
    tape, zeros = c.tape, c.tape.tensor(_of_chunks(c, 1) - states.width, states.itemsize)
    joined = tape.concatenate((zeros, states))
    new_states = tape.new((copied := tape.copy(joined),), joined.width, joined.itemsize, (copied,))
    return tape.slice(new_states, states.width)


# ── operations ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _full(tape: Tape, x: Tensor) -> Scratch:
    """What a gradient is before it is summed to one number a head."""
    return tape.part, x.per_token, 0


def _times(tape: Tape, x: Tensor, of_heads: Tensor) -> Tensor:
    """x * a number a head."""
    scratch = (_full(tape, x),)
    return tape.new((x, of_heads), x.width, FLOAT32, (x, of_heads), scratch=scratch)


def _summed(tape: Tape, x: Tensor) -> Tensor:
    """cumsum: its backward flips the gradient, sums it and flips it back."""
    return tape.new((x,), x.width, FLOAT32, scratch=(_full(tape, x), _full(tape, x)))


def _product(tape: Tape, a: Tensor, b: Tensor, width: int) -> Tensor:
    """bmm, which saves both; einsum has copied what does not lie as it needs it."""
    low = [x if tape.autocast is None else tape.cast(x, tape.autocast) for x in (a, b)]
    return tape.new(low, width, low[0].itemsize, low)


def _padded(c: Context, x: Tensor) -> Tensor:
    """F.pad to whole chunks: a copy even where nothing is added, and its gradient another."""
    return c.tape.new((x,), _share(c, x.width * c.state_space.chunk, 0), FLOAT32)


def _of_chunks(c: Context, more: int) -> int:
    """The states of all chunks, and of so many more, spread over the tokens of a sequence."""
    part: StateSpace = c.state_space
    return _share(c, part.inner * part.state, more)


def _share(c: Context, of_chunk: int, more: int) -> int:
    """Elements a token of what each chunk of a sequence has `of_chunk` of, with `more` chunks."""
    length = c.training.sequence_length
    chunks = -(-length // c.state_space.chunk) + more
    return -(-of_chunk * chunks // length)
