"""What LoRA and DoRA on a linear layer add to the graph, and a generic adapter of the same kind."""

from __future__ import annotations

from peftbench.estimate.peft_forward.matrices import constant, matrix, through, times_vector
from peftbench.estimate.peft_types.shapes import Options, Site
from peftbench.estimate.tape.autograd import Storage, Tape, Tensor
from peftbench.estimate.tape.modules import Context, base_linear, dense
from peftbench.inputs.recipe import AdapterSpec
from peftbench.memory import Part


def lora(c: Context, s: Site, o: Options, x: Tensor) -> Tensor:
    """LoRA: result + B(A(x)) * scaling.

    A float32 adapter casts x to float32 and keeps that copy for A's gradient, one copy for each target; the sum is
    made in float32 and cast back. Over quantized layers PEFT may clone the result first, and leave x alone under
    autocast. Source: peft/tuners/lora/layer.py, bnb.py and gptq.py, 0.21.
    """
    tape, rank, itemsize = c.tape, o["r"], adapter_itemsize(c)
    result = base_linear(c, x, s.m, s.bias)
    wanted, trains_b = result.itemsize, o["init_lora_weights"] != "mica"
    probability = _dropout(c)
    if c.quantization is None or not c.quantization.scheme.lora_leaves_input:
        cast = tape.dropout(tape.cast(x, itemsize), probability)
        result = tape.add(
            result, tape.scale(dense(tape, dense(tape, cast, rank, itemsize, True), s.m, itemsize, trains_b))
        )
        return tape.cast(result, wanted)
    if c.quantization.scheme.lora_copies:
        result = tape.copy(result)
    converts = tape.autocast is None
    cast = tape.dropout(tape.cast(x, itemsize) if converts else x, probability)
    output = tape.scale(dense(tape, dense(tape, cast, rank, itemsize, True), s.m, itemsize, trains_b))
    if converts:
        output = tape.cast(output, wanted)
    return tape.add(result, output)


def dora(c: Context, s: Site, o: Options, x: Tensor) -> Tensor:
    """DoRA: LoRA whose sum with the weight is scaled to a trained norm.

    Source: DoraLinearVariant in peft/tuners/lora/variants.py.
    """
    tape = c.tape
    result = base_linear(c, x, s.m, s.bias)
    wanted = result.itemsize
    if c.quantization is not None:
        result = tape.copy(result)
    leaves_x = c.quantization is not None and tape.autocast is not None
    cast = x if leaves_x else tape.cast(x, adapter_itemsize(c))
    result = tape.add(result, _dora_extra(c, s, o, cast, result))
    return result if leaves_x else tape.cast(result, wanted)


def _dora_extra(c: Context, s: Site, o: Options, x: Tensor, base_result: Tensor) -> Tensor:
    """(scale - 1) * base_result + scale * B(A(x)) * scaling, where scale = magnitude / ‖W + BA‖.

    The norm takes several copies of the whole weight, in the type of x; they live until this returns. With dropout
    the base result is computed anew from what is left of x, in that type, and the weight's copy is saved for it.
    Source: DoraLinearLayer.forward in peft/tuners/lora/dora.py.
    """
    tape, itemsize = c.tape, adapter_itemsize(c)
    dropped = tape.dropout(x, _dropout(c))
    lora_weight = _lora_weight(tape, s, o, itemsize, x.itemsize)
    weight = _weight_as(c, s, x.itemsize)
    tape.scratch(Part.ACTIVATIONS, 0, 2 * s.k * s.m * x.itemsize)  # W + scaling * BA for its norm: product and sum
    lora_result = dense(tape, dense(tape, dropped, o["r"], itemsize, True), s.m, itemsize, True)
    base = base_result
    if _dropout(c):
        base = through(tape, dropped, weight, s.m) if weight else dense(tape, dropped, s.m, x.itemsize, False)
    elif s.bias:
        base = tape.scale(base_result)
    result_dora = tape.add(
        times_vector(tape, base, 0, itemsize),
        tape.scale(times_vector(tape, lora_result, s.m * itemsize, itemsize)),
    )
    del lora_weight, weight
    return result_dora


def _dropout(c: Context) -> float:
    return c.adapter.dropout if c.adapter else 0.0


def _lora_weight(tape: Tape, s: Site, o: Options, itemsize: int, wanted: int) -> list[Storage]:
    """B(A(identity)): the product, and what its graph saves unless a checkpoint drops that."""
    x_eye = constant(tape, s.k * s.k, itemsize)
    low = itemsize if tape.autocast is None else tape.autocast
    eye_cast = x_eye if low == itemsize else constant(tape, s.k * s.k, low)
    inner = constant(tape, s.k * o["r"], low)
    lora_weight = constant(tape, s.k * s.m, low)
    kept = [eye_cast, inner] if tape.records and not tape.drops else []
    del x_eye, eye_cast, inner
    if low != wanted:
        lora_weight = constant(tape, s.k * s.m, wanted)
    return [tensor.storage for tensor in (lora_weight, *kept) if tensor.storage is not None]


def _weight_as(c: Context, s: Site, itemsize: int) -> Tensor | None:
    """The base weight in another type; of a bitsandbytes layer dequantized first."""
    if c.quantization is None:
        return constant(c.tape, s.k * s.m, itemsize) if c.weight_itemsize != itemsize else None
    compute = c.quantization.compute_dtype.bytes
    dequantized = constant(c.tape, s.k * s.m, compute)
    return dequantized if compute == itemsize else constant(c.tape, s.k * s.m, itemsize)


EMBEDDINGS = ("embed_tokens", "wte", "embed_in", "word_embeddings")
"""Names of token embeddings, of which only LoRA can adapt one."""


def adapted_embedding(c: Context, result: Tensor) -> Tensor:
    """LoRA on the token embedding: result + (embedding of A @ B) * scaling. Source: Embedding in lora/layer.py."""
    if c.adapter is None or c.targets.isdisjoint(EMBEDDINGS):
        return result
    tape, rank, itemsize = c.tape, c.adapter.r or 8, adapter_itemsize(c)
    after_a = tape.tensor(rank, itemsize, True)
    tape.record((after_a,), (), parameter_gradients=c.model.vocab_size * rank * itemsize)
    change = tape.scale(dense(tape, after_a, result.width, itemsize, True))
    return tape.cast(tape.add(result, change), result.itemsize)


def trains_tokens(adapter: AdapterSpec | None) -> bool:
    """Whether rows of the token embedding are trained, of which every forward makes a copy of the whole table."""
    return adapter is not None and adapter.peft_type == "trainable_tokens"


def tied_head(c: Context, hidden_states: Tensor) -> Tensor:
    """F.linear with a copy of a tied table, in which the trained rows are: it is saved, and has a whole gradient.

    Source: TrainableTokensLayer.forward_adapters in peft/tuners/trainable_tokens/layer.py.
    """
    table = matrix(c.tape, (), c.model.vocab_size * c.model.embedding_size, c.weight_itemsize)
    return through(c.tape, hidden_states, table, c.model.vocab_size)


def generic(c: Context, s: Site, o: Options, x: Tensor) -> Tensor:
    """An adapter that has no program here: as LoRA of rank 16, with one more full-width float32 result kept."""
    tape, itemsize = c.tape, adapter_itemsize(c)
    result = base_linear(c, x, s.m, s.bias)
    inner = dense(tape, tape.cast(x, itemsize), 16, itemsize, True)
    change = times_vector(tape, dense(tape, inner, s.m, itemsize, True), 0, itemsize)
    return tape.cast(tape.add(result, change), result.itemsize)


def adapter_itemsize(c: Context) -> int:
    """Bytes of an adapter's parameter."""
    assert c.adapter is not None  # only targets come here
    return c.adapter.dtype.bytes
