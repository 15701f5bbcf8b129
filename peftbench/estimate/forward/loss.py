"""What the head and the cross-entropy of each loss implementation keep: the logits are often the largest term."""

from __future__ import annotations

from peftbench.estimate.forward.generations import loss_variant
from peftbench.estimate.peft_forward.dispatch import linear
from peftbench.estimate.peft_forward.lora import tied_head, trains_tokens
from peftbench.estimate.peft_forward.virtual_tokens import stream_tokens
from peftbench.estimate.tape.autograd import FLOAT32, Tape, Tensor
from peftbench.estimate.tape.modules import Context, dense, norm
from peftbench.inputs.recipe import TrainingSpec
from peftbench.memory import Part

CHUNKS = 8
"""num_output_chunks of torchtune's CEWithChunkedOutputLoss."""


def head_and_loss(c: Context, stream_itemsize: int, head_itemsize: int) -> tuple[Tensor, Tensor | None]:
    """Final norm, lm_head and loss on the last layer's output, which is made here.

    Returns the loss and the logits that the model's outputs hold.
    """
    hidden_states = c.tape.tensor(c.model.hidden_size, stream_itemsize, True)
    if c.model.final_norm:
        hidden_states = norm(c, hidden_states, c.model.family.layout.final_norm)
    if c.model.embedding_size != c.model.hidden_size:
        hidden_states = linear(c, "project_out", hidden_states, c.model.embedding_size)
    c.tape.part, c.weight_itemsize = Part.LOGITS, head_itemsize
    if c.model.family.float32_logits:
        hidden_states = c.tape.cast(hidden_states, head_itemsize)
    loss = loss_variant(c.model.family, c.training)
    if loss == "liger":
        return _fused_linear(c, hidden_states, stream_tokens(c.training)), None
    if loss == "chunked":
        return _chunked(c, hidden_states), None
    if "lm_head" in c.targets:
        logits = linear(c, "lm_head", hidden_states, c.model.vocab_size, c.model.lm_head_bias)
    elif c.model.tie_word_embeddings and trains_tokens(c.adapter):
        logits = tied_head(c, hidden_states)
    else:
        logits = dense(c.tape, hidden_states, c.model.vocab_size, head_itemsize, c.full, c.model.lm_head_bias)
    if "logits" in c.model.family.scales:
        logits = c.tape.scale(logits)
    if c.model.family.float32_logits:
        logits = c.tape.cast(logits, FLOAT32)
    if c.model.final_logit_softcapping:
        logits = c.tape.scale(logits)
        logits = c.tape.unary(logits, "output")
        logits = c.tape.scale(logits)
    if has_own_loss(c.training):
        return _replaced(c, logits, loss), logits
    return _LOSSES[loss](c, logits), logits


def has_own_loss(training: TrainingSpec) -> bool:
    """Whether the adapter computes a loss of its own on the logits: CPT."""
    return training.adapter is not None and training.adapter.peft_type == "cpt"


def _replaced(c: Context, logits: Tensor, loss: str) -> Tensor:
    """The model's loss is computed first, and its graph dropped when CPT's own takes its place.

    Source: _cpt_forward in peft/peft_model.py, CPTEmbedding.calculate_loss in peft/tuners/cpt/model.py.
    """
    first = len(c.tape.nodes)
    models = _LOSSES[loss](c, logits)
    last = len(c.tape.nodes)
    shift_logits = _shift(c, logits)
    log_probabilities = c.tape.unary(shift_logits, "output")
    wide = log_probabilities if c.tape.autocast is None else c.tape.cast(log_probabilities, FLOAT32)
    own = c.tape.new((wide,), 0, FLOAT32, (wide,))
    del models, shift_logits, c.tape.nodes[first:last]
    return own


def _cross_entropy(tape: Tape, logits: Tensor) -> Tensor:
    """F.cross_entropy: log_softmax saves its float32 output; nll_loss saves that too and makes a full gradient."""
    log_probabilities = tape.unary(logits, "output")
    return tape.new((log_probabilities,), 0, FLOAT32, (log_probabilities,))


def _transformers(c: Context, logits: Tensor) -> Tensor:
    """transformers 5 shifts the labels: float32 logits, log-probabilities and in backward two gradients, 12 V.

    Source: ForCausalLMLoss in transformers/loss/loss_utils.py.
    """
    return _cross_entropy(c.tape, c.tape.cast(logits, FLOAT32))


def _transformers_4(c: Context, logits: Tensor) -> Tensor:
    """transformers 4.46 to 4.49 shift the logits: a second float32 copy, 14 V with the 16-bit logits.

    Source: ForCausalLMLoss of 4.48: `logits = logits.float()`, `logits[..., :-1, :].contiguous()`.
    """
    upcast = c.tape.cast(logits, FLOAT32)
    return _cross_entropy(c.tape, _shift(c, upcast))


def _fused(c: Context, logits: Tensor) -> Tensor:
    """A fused cross-entropy kernel under the 4.4x loss: upcast and shifted copy remain, 10 V with the 16-bit logits.

    The kernel writes the gradient over the shifted logits and keeps no log-probabilities.
    Source: measured on Mistral-7B with FOAK's kernel (fms-acceleration, 24bdadb), and Liger's cross_entropy.
    """
    upcast = c.tape.cast(logits, FLOAT32)
    return _fused_kernel(c.tape, _shift(c, upcast))


def _shift(c: Context, logits: Tensor) -> Tensor:
    """logits[..., :-1, :].contiguous(): a copy, but for a single sequence, whose slice is contiguous already.

    It has a token less of each sequence, so it leaves a block of the logits that no other logits fit.
    """
    view = c.tape.slice(logits, logits.width)
    view.fixed_elements = -logits.width * c.training.micro_batch_size
    if not c.several_sequences:
        return view
    return c.tape.new(
        (view,), view.width, view.itemsize, fixed_elements=view.fixed_elements, aliases=(view.key,)
    )  # fmt: skip


def _fused_kernel(tape: Tape, logits: Tensor) -> Tensor:
    """A cross-entropy kernel that writes the gradient over its input and keeps no log-probabilities."""
    return tape.new((logits,), 0, FLOAT32, (logits,), returns_saved=True)


def _rebound(c: Context, logits: Tensor) -> Tensor:
    """transformers 4.45 and older upcast inside the model, so the 16-bit logits are gone: 12 V in forward."""
    upcast = c.tape.cast(logits, FLOAT32)
    logits.storage = None
    return _cross_entropy(c.tape, _shift(c, upcast))


def _rebound_fused(c: Context, logits: Tensor) -> Tensor:
    """A fused kernel under transformers 4.45 and older: 8 V."""
    upcast = c.tape.cast(logits, FLOAT32)
    logits.storage = None
    return _fused_kernel(c.tape, _shift(c, upcast))


def _shifted(c: Context, logits: Tensor) -> Tensor:
    """A loss without upcast: 6 V in 16 bit; autocast runs the cross-entropy in float32, 12 V."""
    shifted = _shift(c, logits)
    upcast = shifted if c.tape.autocast is None else c.tape.cast(shifted, FLOAT32)
    return _cross_entropy(c.tape, upcast)


def _shifted_fused(c: Context, logits: Tensor) -> Tensor:
    """A fused kernel on shifted 16-bit logits: 4 V."""
    return _fused_kernel(c.tape, _shift(c, logits))


def _fused_5(c: Context, logits: Tensor) -> Tensor:
    """A fused kernel under transformers 5: it works on the upcast logits, 6 V with the 16-bit ones."""
    return _fused_kernel(c.tape, c.tape.cast(logits, FLOAT32))


def _chunked(c: Context, hidden_states: Tensor) -> Tensor:
    """Head and cross-entropy over chunks of the tokens: log-probabilities are saved, gradients are those of a chunk.

    The logits of all chunks exist until the loss is computed. Source: CEWithChunkedOutputLoss and
    TransformerDecoder.chunked_output of torchtune.
    """
    tape = c.tape
    low = hidden_states if tape.autocast is None else tape.cast(hidden_states, tape.autocast)
    weight = _head_weight(c, low)
    pieces = tape.split(low, [low.width // CHUNKS] * CHUNKS)
    logits = [_chunk_of_logits(c, piece, weight) for piece in pieces]
    losses = [_cross_entropy(tape, tape.cast(chunk, FLOAT32)) for chunk in logits]
    return tape.new(losses, 0, FLOAT32)


def _head_weight(c: Context, low: Tensor) -> Tensor | None:
    """The trained head, whose gradients of the chunks are summed in backward; autocast makes one copy of a wider one.

    None for a frozen head.
    """
    if not c.full:
        return None
    tape, elements = c.tape, c.model.vocab_size * low.width
    copied = elements if low.itemsize != c.weight_itemsize else 0
    storage = tape.tensor(0, low.itemsize, fixed_elements=copied).storage
    weight = Tensor(storage, 0, low.itemsize, True, tape.next_key(), elements)
    tape.record((weight,), (), parameter_gradients=elements * c.weight_itemsize)
    return weight


def _chunk_of_logits(c: Context, piece: Tensor, weight: Tensor | None) -> Tensor:
    """The head on one of the chunks: `piece` has all tokens and a share of their channels, which is as many bytes."""
    tape, trained = c.tape, [weight] if weight else []
    saved = [piece, *trained] if weight else []
    if not weight and piece.itemsize != c.weight_itemsize:  # autocast copies a frozen head for each
        saved.append(tape.tensor(0, piece.itemsize, fixed_elements=c.model.vocab_size * c.model.embedding_size))
    chunk = tape.tensor(c.model.vocab_size // CHUNKS, piece.itemsize, True)
    tape.record((chunk,), (piece, *trained), saved, saves_constant=True, gives_views=True)
    return chunk


def _fused_linear(c: Context, hidden_states: Tensor, tokens: int) -> Tensor:
    """Liger's fused linear cross-entropy: logits of one chunk of tokens at a time; the gradients are made in forward.

    The tokens are cut into V / hidden chunks, rounded up to a power of two, so a chunk of logits is about as large
    as the hidden states. Source: LigerFusedLinearCrossEntropyFunction, liger-kernel ops/fused_linear_cross_entropy.py.
    """
    tape, vocabulary = c.tape, c.model.vocab_size
    low = hidden_states if tape.autocast is None else tape.cast(hidden_states, tape.autocast)
    parts = -(-vocabulary // low.width)
    chunk = 1 << (-(-tokens // parts) - 1).bit_length()
    gradient = tape.tensor(low.width, low.itemsize)
    weight_gradient = _liger_chunk(c, low, min(chunk, tokens))
    loss = tape.tensor(0, FLOAT32, True)
    tape.record((loss,), (low,), (gradient,), returns_saved=True, parameter_gradients=weight_gradient)
    return loss


def _liger_chunk(c: Context, low: Tensor, tokens: int) -> int:
    """A chunk's logits, which their gradient overwrites, and what it adds to the bytes of the head's gradient.

    The head is cast to the type of the hidden states for both products; the product that is added to the gradient
    is cast to float32.
    """
    tape, elements = c.tape, c.model.vocab_size * low.width
    trained = elements * c.weight_itemsize if c.full else 0
    held = [tape.tensor(0, c.weight_itemsize, part=Part.GRADIENTS, fixed_elements=elements)] if trained else []
    casts = low.itemsize != c.weight_itemsize
    cast = tape.tensor(0, low.itemsize, fixed_elements=elements) if casts else None
    held.append(tape.tensor(0, low.itemsize, fixed_elements=tokens * c.model.vocab_size))
    del cast
    if casts:
        tape.scratch(tape.part, 0, elements * low.itemsize)
    if trained:
        product = tape.tensor(0, low.itemsize, fixed_elements=elements)
        if low.itemsize < FLOAT32:
            tape.scratch(tape.part, 0, elements * FLOAT32)
        del product
    return trained


_LOSSES = {
    "transformers": _transformers, "transformers-4": _transformers_4, "fused": _fused, "fused-5": _fused_5,
    "rebound": _rebound, "rebound-fused": _rebound_fused, "shifted": _shifted, "shifted-fused": _shifted_fused,
}  # fmt: skip
