"""The gated delta rule in chunks of a sequence, in torch operations: torch_chunk_gated_delta_rule of transformers.

Everything is float32, and autocast's type in products. What is kept grows with the number of chunks, each of which
leaves its state; so a width here is of a token of this sequence's length, chunks' padding included.
Source: modeling_qwen3_5.py; linalg_solve_triangular_backward in pytorch/torch/csrc/autograd/FunctionsManual.cpp;
CopySlices in torch/csrc/autograd/functions/tensor.cpp.
"""

from __future__ import annotations

from typing import NamedTuple

from peftbench.estimate.tape.autograd import FLOAT32, Tape, Tensor
from peftbench.estimate.tape.modules import Context
from peftbench.inputs.model.parts import DELTA_CHUNK

PLAYED = 3
"""Chunks that are run one by one; what the others keep is added at once."""


class _Chunks(NamedTuple):
    """What the loop over chunks reads: the whole sequence's."""

    new_values: Tensor
    k_cumdecay: Tensor
    query: Tensor
    key: Tensor
    intra_chunk_attn: Tensor
    lies_apart: bool
    """A product folds sequences and heads of queries and keys into one dimension, which copies them."""


def chunk_gated_delta_rule(c: Context, query: Tensor, key: Tensor, value: Tensor, g: Tensor, beta: Tensor) -> Tensor:
    """The rule's output, as wide as the values, in the queries' type."""
    tape = c.tape
    q, k, v, rate, decay = _prepared(c, query, key, value, beta, g)
    v_beta, k_beta = _times(tape, v, rate), _times(tape, k, rate)
    cum_decay = tape.new((decay,), decay.width, FLOAT32)
    pairwise_decay = _pairwise(c, cum_decay)
    lies_apart = _lies_apart(c, query)
    ut_system = tape.multiply(_product(tape, k_beta, k, pairwise_decay.width, lies_apart), pairwise_decay)
    intra_chunk_attn = tape.multiply(_product(tape, q, k, pairwise_decay.width, lies_apart), pairwise_decay)
    decayed_k_beta = _times(tape, k_beta, tape.unary(cum_decay, "output"))
    new_values = _solved(tape, ut_system, v_beta)
    k_cumdecay = _solved(tape, ut_system, decayed_k_beta)
    q = _times(tape, q, tape.unary(cum_decay, "output"))
    k = _times(tape, k, tape.unary(tape.scale(cum_decay), "output"))
    repeated = c.delta_net.key_heads != c.delta_net.value_heads
    chunks = _Chunks(new_values, k_cumdecay, q, k, intra_chunk_attn, lies_apart and repeated and c.several_sequences)
    core_attn_out = _scan(c, chunks)
    if core_attn_out.width != value.width:
        core_attn_out = tape.slice(core_attn_out, value.width)
    return tape.copy(core_attn_out) if query.itemsize == FLOAT32 else tape.cast(core_attn_out, query.itemsize)


def _prepared(c: Context, query: Tensor, key: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """Repeated to every value head, in float32, queries and keys normed, all padded to whole chunks."""
    tape, part = c.tape, c.delta_net
    q, k = query, key
    if part.key_heads != part.value_heads:
        spread = part.value_heads * part.key_head_dim
        q, k = tape.copy(query, spread), tape.copy(key, spread)
    q, k, v, rate, decay = (tape.cast(x, FLOAT32) for x in (q, k, *others))
    q = _l2norm(tape, q, part.value_heads)
    k = _l2norm(tape, k, part.value_heads)
    q = tape.scale(q)
    q, k, v = (_padded(c, x) for x in (q, k, v))
    rate, decay = (_padded(c, x) for x in (rate, decay))
    return q, k, v, rate, decay


def _lies_apart(c: Context, query: Tensor) -> bool:
    """Whether a head's tokens lie apart: a cast or padding would have laid them out one after the other.

    `.to(dtype, memory_format=contiguous_format)` does nothing where the type is the same.
    """
    return query.itemsize == FLOAT32 and c.training.sequence_length % DELTA_CHUNK == 0


def _l2norm(tape: Tape, x: Tensor, heads: int) -> Tensor:
    """x * rsqrt((x * x).sum(-1) + eps)."""
    square = tape.tensor(x.width, FLOAT32)
    total = tape.new((x, x), heads, FLOAT32, (x,))
    del square
    inv_norm = tape.unary(tape.scale(total), "output")
    return _times(tape, x, inv_norm)


def _padded(c: Context, x: Tensor) -> Tensor:
    """F.pad, which copies even where nothing is added."""
    return c.tape.new((x,), _whole_chunks(c, x.width), FLOAT32)


def _whole_chunks(c: Context, width: int) -> int:
    """The width a token of a tensor whose tokens are rounded up to whole chunks."""
    length = c.training.sequence_length
    return round(width * DELTA_CHUNK * _number(c) / length)


def _number(c: Context) -> int:
    return -(-c.training.sequence_length // DELTA_CHUNK)


def _times(tape: Tape, x: Tensor, factor: Tensor) -> Tensor:
    """x * factor.unsqueeze(-1): the factor's gradient is made for every channel, then summed."""
    return tape.new((x, factor), x.width, FLOAT32, (x, factor), scratch=((tape.part, x.per_token, 0),))


def _pairwise(c: Context, cum_decay: Tensor) -> Tensor:
    """exp of the differences of all pairs of tokens in a chunk, those above the diagonal masked."""
    tape, width = c.tape, _whole_chunks(c, c.delta_net.value_heads * DELTA_CHUNK)
    pairwise_decay = tape.new((cum_decay,), width, FLOAT32, scratch=((tape.part, width * FLOAT32, 0),))
    pairwise_decay = tape.new((pairwise_decay,), width, FLOAT32, saves_constant=True)
    return tape.unary(pairwise_decay, "output")


def _product(tape: Tape, a: Tensor, b: Tensor, width: int, lies_apart: bool = False) -> Tensor:
    """a @ b, in autocast's type; the first chunk's state needs no gradient."""
    low_a, low_b = (_operand(tape, x, lies_apart) for x in (a, b))
    saved = [x for x, other in ((low_a, low_b), (low_b, low_a)) if other.needs_grad]
    return tape.new((low_a, low_b), width, low_a.itemsize, saved)


def _operand(tape: Tape, x: Tensor, lies_apart: bool) -> Tensor:
    low = x if tape.autocast is None else tape.cast(x, tape.autocast)
    return tape.copy(low) if lies_apart else low


def _solved(tape: Tape, system: Tensor, right: Tensor) -> Tensor:
    """torch.linalg.solve_triangular(system, right): saves system and result; the product in backward is negated."""
    out = tape.tensor(right.width, FLOAT32, right.needs_grad)
    if out.needs_grad:
        tape.record((out,), (system, right), (system, out), scratch=((tape.part, system.per_token, 0),))
    return out


# ── the loop over chunks ────────────────────────────────────────────────────────────────────────────────────────────


def _scan(c: Context, chunks: _Chunks) -> Tensor:
    """One chunk after another; each reads the state that the one before it left."""
    tape, number = c.tape, _number(c)
    state = tape.tensor(-(-c.delta_net.state_size // c.training.sequence_length), FLOAT32)
    core_attn_out = tape.tensor(chunks.new_values.width, FLOAT32)
    for played in range(min(number, PLAYED)):
        before = tape.ledger.per_token
        core_attn_out, state = _chunk(c, chunks, core_attn_out, state)
        if played == 1:  # the first one's state needs no gradient
            state = _others(tape, state, (number - PLAYED) * (tape.ledger.per_token - before))
    return core_attn_out


def _others(tape: Tape, state: Tensor, kept: int) -> Tensor:
    """The state after chunks that are not run one by one, which keep so many bytes a token."""
    if kept <= 0 or not state.needs_grad:
        return state
    after = tape.view(state, state.width)
    tape.record((after,), (state,), (tape.tensor(kept, 1),), aliases=(state.key,))
    return after


def _chunk(c: Context, chunks: _Chunks, written: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The outputs with this chunk's written into them, and the next state."""
    tape, number = c.tape, _number(c)
    width = chunks.new_values.width // number
    new_values, k_cumdecay, query, key, intra = (tape.slice(x, x.width // number) for x in chunks[:5])
    query, key = (tape.copy(x) if chunks.lies_apart else x for x in (query, key))
    v_new = tape.new((new_values, _product(tape, k_cumdecay, state, width)), width, FLOAT32, aliases=(new_values.key,))
    inter_chunk_attn = _product(tape, query, state, width)
    core_attn_out = _write(tape, written, tape.add(inter_chunk_attn, _product(tape, intra, v_new, width)))
    kept = tape.new((state,), state.width, FLOAT32, (state,), scratch=((tape.part, state.per_token, 0),))
    update = _product(tape, key, v_new, state.width)
    return core_attn_out, tape.add(kept, update)


def _write(tape: Tape, whole: Tensor, chunk: Tensor) -> Tensor:
    """whole[:, :, i] = chunk: in place; backward copies the whole gradient, zeroes this part and clones it."""
    written = Tensor(whole.storage, whole.width, FLOAT32, chunk.needs_grad, tape.next_key())
    tape.record((written,), (whole, chunk), scratch=((tape.part, chunk.per_token, 0),))
    return written
