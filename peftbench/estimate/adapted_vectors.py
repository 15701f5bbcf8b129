"""What adapters that work on activations add to the graph: scaled vectors, low ranks with a scale, block sums.

Each function is named after its PEFT type; its source is `forward` in peft/tuners/<type>/layer.py of PEFT 0.21,
and bnb.py there where bitsandbytes layers differ.
"""

from __future__ import annotations

from peftbench.estimate.adapted_lora import adapter_itemsize
from peftbench.estimate.adapted_matrices import add_in_place, constant, matrix, through, times_vector
from peftbench.estimate.adapter_shapes import Options, Site
from peftbench.estimate.autograd import FLOAT32, Tensor
from peftbench.estimate.modules import Context, base_linear, dense


def ia3(c: Context, s: Site, o: Options, x: Tensor) -> Tensor:
    """Scales the input of feed-forward targets and the output of others by a trained vector."""
    if c.quantization is not None:
        return _ia3_quantized(c, s, x)
    tape, itemsize = c.tape, adapter_itemsize(c)
    if s.feedforward:
        wide = tape.cast(x, itemsize)
        interm = tape.cast(times_vector(tape, wide, s.k * itemsize, itemsize), x.itemsize)
        return base_linear(c, interm, s.m, s.bias)
    result = base_linear(c, x, s.m, s.bias)
    return tape.cast(times_vector(tape, result, s.m * itemsize, itemsize), result.itemsize)


def _ia3_quantized(c: Context, s: Site, x: Tensor) -> Tensor:
    """Converts x to float32 before the layer, so a 16-bit stream is multiplied and cloned in float32."""
    assert c.quantization is not None  # the caller asks
    tape, itemsize = c.tape, adapter_itemsize(c)
    wide = tape.cast(x, FLOAT32) if tape.autocast is None else x
    if s.feedforward:
        result = base_linear(c, times_vector(tape, wide, s.k * itemsize, itemsize), s.m, s.bias)
    else:
        result = base_linear(c, wide, s.m, s.bias)
        result = times_vector(tape, result, s.m * itemsize, itemsize)
    return tape.copy(result) if c.quantization.four_bit else result


def adalora(c: Context, s: Site, o: Options, x: Tensor) -> Tensor:
    """result += x @ (A * E).T @ B.T * scaling / ranknum, in place: the sum keeps the layer's type."""
    tape, itemsize, rank = c.tape, adapter_itemsize(c), o["init_r"]
    result = base_linear(c, x, s.m, s.bias)
    wanted = result.itemsize
    if c.quantization is not None and c.quantization.four_bit:
        result = tape.copy(result)
    converts = c.quantization is None or tape.autocast is None
    cast = tape.cast(x, itemsize) if converts else x
    parameters = rank * s.k * itemsize
    scaled_a = matrix(tape, (), rank * s.k, itemsize, trained=parameters + rank * itemsize, scratch=parameters)
    inner = through(tape, cast, scaled_a, rank)
    if c.quantization is None:
        scaled = tape.scale(dense(tape, inner, s.m, itemsize, True))
        return add_in_place(tape, result, tape.scale_by_constant(scaled))
    output = dense(tape, inner, s.m, itemsize, True)
    if converts:
        output = tape.cast(output, wanted)
    output = tape.scale_by_constant(tape.scale(output))
    return add_in_place(tape, result, output) if c.quantization.four_bit else tape.add(result, output)


def vera(c: Context, s: Site, o: Options, x: Tensor) -> Tensor:
    """result + lambda_b * (B (lambda_d * (A x))) with frozen A and B: nothing of x itself is saved."""
    tape, itemsize, rank = c.tape, adapter_itemsize(c), o["r"]
    result = base_linear(c, x, s.m, s.bias)
    wanted = result.itemsize
    if c.quantization is not None and c.quantization.four_bit:
        result = tape.copy(result)
    cast = tape.cast(x, itemsize)
    change = dense(tape, cast, rank, itemsize, False)
    change = times_vector(tape, change, rank * itemsize)
    change = dense(tape, change, s.m, itemsize, False)
    change = times_vector(tape, change, s.m * itemsize)
    result = tape.add(result, change)
    del change
    return tape.cast(tape.cast(result, wanted), x.itemsize)


def miss(c: Context, s: Site, o: Options, x: Tensor) -> Tensor:
    """result + sum of x's blocks @ D: x is cast but only its block sums are saved."""
    tape, itemsize, rank = c.tape, adapter_itemsize(c), o["r"]
    result = base_linear(c, x, s.m, s.bias)
    if c.quantization is not None and c.quantization.four_bit:
        result = tape.copy(result)
    padded = x if s.k % rank == 0 else tape.new((x,), s.k + rank - s.k % rank, x.itemsize)
    cast = tape.cast(padded, itemsize)
    summed = tape.new((cast,), rank, itemsize)
    result = tape.add(result, dense(tape, summed, s.m, itemsize, True))
    return tape.cast(result, x.itemsize)


def delora(c: Context, s: Site, o: Options, x: Tensor) -> Tensor:
    """base_out + B(A(x * w_norm) * scaling), summed into zeros of the layer's type."""
    tape, itemsize, rank = c.tape, adapter_itemsize(c), o["r"]
    base_out = base_linear(c, x, s.m, s.bias)
    add_out = tape.tensor(s.m, base_out.itemsize)
    normed = tape.new((x,), s.k, max(x.itemsize, itemsize), saves_constant=True)
    h = dense(tape, normed, rank, itemsize, True)
    del normed
    h = times_vector(tape, h, rank * itemsize)
    h = dense(tape, h, s.m, itemsize, True)
    return tape.add(base_out, add_in_place(tape, add_out, h))


def gralora(c: Context, s: Site, o: Options, x: Tensor) -> Tensor:
    """result += scaling * (blocks of x through blocks of A and B), two einsums with copies between them."""
    tape, itemsize, inner = c.tape, adapter_itemsize(c), o["r"] * o["gralora_k"]
    parameters = o["r"] * itemsize
    result = base_linear(c, x, s.m, s.bias)
    output = tape.copy(
        _blocks(c, tape.copy(_blocks(c, tape.cast(x, itemsize), inner, parameters * s.k)), s.m, parameters * s.m)
    )
    result = add_in_place(tape, result, tape.scale(tape.cast(output, result.itemsize)))
    if o["hybrid_r"]:
        wide = tape.cast(x, itemsize)
        hybrid_output = dense(tape, dense(tape, wide, o["hybrid_r"], itemsize, True), s.m, itemsize, True)
        result = add_in_place(tape, result, tape.scale(tape.cast(hybrid_output, result.itemsize)))
    return result


def _blocks(c: Context, x: Tensor, width: int, trained: int) -> Tensor:
    """A block-diagonal product by batched matrix multiplication: saves x."""
    low = x if c.tape.autocast is None else c.tape.cast(x, c.tape.autocast)
    out = c.tape.output(width, low.itemsize, True)
    c.tape.record((out,), (low,), (low,), parameter_gradients=trained, saves_constant=True)
    return out


def vblora(c: Context, s: Site, o: Options, x: Tensor) -> Tensor:
    """LoRA whose A and B are weighted sums of a shared bank's vectors; the gathered vectors are saved."""
    tape, itemsize, rank = c.tape, adapter_itemsize(c), o["r"]
    result = base_linear(c, x, s.m, s.bias)
    a, b = _composed(c, s.k, o), _composed(c, s.m, o)
    cast = tape.cast(x, itemsize)
    result = tape.add(result, through(tape, through(tape, cast, a, rank), b, s.m))
    return tape.cast(result, x.itemsize)


VBLORA_TOPK = 2
"""VBLoRAConfig.topk."""


def _composed(c: Context, size: int, o: Options) -> Tensor:
    """softmax of the two largest logits times the vectors of the bank that they point at, summed."""
    tape, itemsize, elements = c.tape, adapter_itemsize(c), o["r"] * size
    logits = elements // o["vector_length"] * o["num_vectors"] * itemsize
    gathered = constant(tape, VBLORA_TOPK * elements, itemsize)
    bank = o["num_vectors"] * o["vector_length"] * itemsize
    tape.scratch(tape.part, 0, VBLORA_TOPK * elements * itemsize)
    scratch = 2 * VBLORA_TOPK * elements * itemsize + bank
    return matrix(tape, (), elements, itemsize, (gathered,), trained=logits, scratch=scratch)


def road(c: Context, s: Site, o: Options, x: Tensor) -> Tensor:
    """Rotates pairs of the result: result * cos + rotated result * sin, both factors saved in float32."""
    tape, itemsize = c.tape, adapter_itemsize(c)
    result = base_linear(c, x, s.m, s.bias)
    wanted = result.itemsize
    result = tape.cast(result, itemsize)
    trained = s.m * itemsize
    rotate_half_x = _rotate_pairs(c, result)
    result = tape.add(
        times_vector(tape, result, trained, itemsize), times_vector(tape, rotate_half_x, trained, itemsize)
    )
    return tape.cast(result, wanted)


def _rotate_pairs(c: Context, x: Tensor) -> Tensor:
    """torch.stack((-x2, x1)) of halves of each group."""
    tape, half = c.tape, x.width // 2
    x1, x2 = tape.slice(x, half), tape.slice(x, half)
    return tape.concatenate((tape.scale(x2), x1))
