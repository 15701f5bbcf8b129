"""What adapters of low rank other than LoRA add to the graph: AdaLoRA, VeRA, VB-LoRA, DeLoRA, GraLoRA, OSF and kin.

Each function is named after its PEFT type; its source is `forward` in peft/tuners/<type>/layer.py of PEFT 0.21,
and bnb.py there where bitsandbytes layers differ.
"""

from __future__ import annotations

from math import prod

from peftbench.estimate.peft_forward.lora import adapter_itemsize
from peftbench.estimate.peft_forward.matrices import add_in_place, constant, matrix, through, times_vector
from peftbench.estimate.peft_types.shapes import Options, Site, osf_ranks
from peftbench.estimate.peft_types.shapes import psoft as psoft_shapes
from peftbench.estimate.tape.autograd import FLOAT32, Tape, Tensor
from peftbench.estimate.tape.modules import Context, base_linear, dense


def adalora(c: Context, s: Site, o: Options, x: Tensor) -> Tensor:
    """result += x @ (A * E).T @ B.T * scaling / ranknum, in place: the sum keeps the layer's type."""
    tape, itemsize, rank = c.tape, adapter_itemsize(c), o["init_r"]
    result = base_linear(c, x, s.m, s.bias)
    wanted = result.itemsize
    if c.quantization is not None and c.quantization.scheme.others_copy:
        result = tape.copy(result)
    converts = c.quantization is None or tape.autocast is None
    cast = tape.cast(x, itemsize) if converts else x
    parameters = rank * s.k * itemsize
    scaled_a = matrix(tape, (), rank * s.k, itemsize, trained=parameters + rank * itemsize, scratch=parameters)
    inner = through(tape, cast, scaled_a, rank)
    if c.quantization is None:
        scaled = tape.scale(dense(tape, inner, s.m, itemsize, True))
        return add_in_place(tape, result, _by_ranknum(tape, scaled))
    output = dense(tape, inner, s.m, itemsize, True)
    if converts:
        output = tape.cast(output, wanted)
    output = _by_ranknum(tape, tape.scale(output))
    return add_in_place(tape, result, output) if c.quantization.four_bit else tape.add(result, output)


def _by_ranknum(tape: Tape, x: Tensor) -> Tensor:
    """x / ranknum, a float32 tensor of one number: the quotient is float32, and so is its gradient until cast.

    PEFT 0.21 makes ranknum a trained parameter when it moves the adapter to the card (0.19 did not), so x is saved
    and backward computes -gradient * (x / ranknum) / ranknum, each step in full.
    """
    full = x.width * FLOAT32
    scratch = ((tape.part, 4 * full - x.per_token, 0),)
    return tape.new((x,), x.width, FLOAT32, (x,), scratch=scratch, saves_constant=True)


def vera(c: Context, s: Site, o: Options, x: Tensor) -> Tensor:
    """result + lambda_b * (B (lambda_d * (A x))) with frozen A and B: nothing of x itself is saved."""
    tape, itemsize, rank = c.tape, adapter_itemsize(c), o["r"]
    result = base_linear(c, x, s.m, s.bias)
    wanted = result.itemsize
    if c.quantization is not None and c.quantization.scheme.others_copy:
        result = tape.copy(result)
    cast = tape.cast(x, itemsize)
    change = dense(tape, cast, rank, itemsize, False)
    change = times_vector(tape, change, rank * itemsize)
    change = dense(tape, change, s.m, itemsize, False)
    change = times_vector(tape, change, s.m * itemsize)
    result = tape.add(result, change)
    del change
    return tape.cast(tape.cast(result, wanted), x.itemsize)


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


def pvera(c: Context, s: Site, o: Options, x: Tensor) -> Tensor:
    """VeRA with a mean and a variance in A, from which the low rank is sampled."""
    tape, itemsize, rank = c.tape, adapter_itemsize(c), o["r"]
    result = base_linear(c, x, s.m, s.bias)
    cast = tape.cast(x, itemsize)
    change = dense(tape, cast, 2 * rank, itemsize, False)
    change = times_vector(tape, change, 2 * rank * itemsize)
    mu, logvar = tape.split(change, (rank, rank))
    change = tape.add(mu, _sampled(tape, logvar))
    change = dense(tape, change, s.m, itemsize, False)
    change = times_vector(tape, change, s.m * itemsize)
    result = tape.add(result, change)
    del change
    return tape.cast(result, x.itemsize)


def _sampled(tape: Tape, logvar: Tensor) -> Tensor:
    """exp(logvar / 2) * noise."""
    std = tape.unary(tape.scale(logvar), "output")
    noise = tape.tensor(logvar.width, logvar.itemsize)
    return tape.multiply(std, noise)


def lily(c: Context, s: Site, o: Options, x: Tensor) -> Tensor:
    """result + (A(x) @ a mixture of shared B) * scaling; A and B are shared, so no gradient is left here."""
    tape, itemsize, rank = c.tape, adapter_itemsize(c), o["r"]
    result = base_linear(c, x, s.m, s.bias)
    cast = tape.cast(x, itemsize)
    hidden = _blocks(c, cast, rank, 0)
    logits = _blocks(c, hidden, o["num_B"], rank * o["num_B"] * itemsize)
    probability = tape.softmax(logits, FLOAT32)
    combined = matrix(tape, (), rank * s.m, itemsize, (probability,), scratch=rank * s.m * o["num_B"] * itemsize)
    delta = through(tape, hidden, combined, s.m)
    return tape.add(result, tape.cast(tape.scale(delta), result.itemsize))


def deft(c: Context, s: Site, o: Options, x: Tensor) -> Tensor:
    """result - (result @ right) @ Q.T + R(x) @ Q.T, all in float32; right and Q come from a decomposition of P."""
    tape, rank = c.tape, o["r"]
    base_out = base_linear(c, x, s.m, s.bias)
    result = tape.cast(base_out, FLOAT32)
    base_product = tape.scale(result) if s.bias else result
    wide = tape.cast(x, FLOAT32)
    size = s.m * rank * adapter_itemsize(c)
    q_p = matrix(tape, (), s.m * rank, FLOAT32, trained=size, scratch=2 * size)
    right = matrix(tape, (q_p,), s.m * rank, FLOAT32)
    correction = through(tape, through(tape, base_product, right, rank), q_p, s.m)
    result = tape.add(result, correction)
    if not o["para"]:
        result = tape.add(result, through(tape, dense(tape, wide, rank, FLOAT32, True), q_p, s.m))
    return tape.cast(result, x.itemsize)


def psoft(c: Context, s: Site, o: Options, x: Tensor) -> Tensor:
    """result + B(R(A(x)) - A(x)) * scaling: A and B are frozen, R is a small matrix, a rotation is made anew."""
    tape, rank = c.tape, o["r"]
    result = base_linear(c, x, s.m, s.bias)
    xa = dense(tape, tape.cast(x, FLOAT32), rank, FLOAT32, False)
    solved = constant(tape, SOLVED_MATRICES * rank * rank if o["psoft_orth"] else 0, FLOAT32)
    trained = sum(prod(shape) for shape in psoft_shapes(s, o)) * adapter_itemsize(c)
    rotation = matrix(tape, (), rank * rank, FLOAT32, (solved,), trained=trained)
    del solved
    turned = tape.add(through(tape, xa, rotation, rank), xa)
    change = tape.scale(dense(tape, turned, s.m, FLOAT32, False))
    return tape.cast(tape.add(result, change), result.itemsize)


SOLVED_MATRICES = 3
"""torch.linalg.solve saves its matrix, the factors of that and the solution; a Neumann series as many powers."""


def osf(c: Context, s: Site, o: Options, x: Tensor) -> Tensor:
    """result + A(B(x)) with A and B the trained part beside what it was at first, twice as high as its rank."""
    tape, itemsize, rank = c.tape, adapter_itemsize(c), osf_ranks(s, o)[1]
    result = base_linear(c, x, s.m, s.bias)
    tape.scratch(tape.part, 0, 3 * s.m * rank * itemsize)
    trained = (s.m + 1) * rank * itemsize
    a = matrix(tape, (), 2 * s.m * rank, itemsize, trained=trained, scratch=s.m * rank * itemsize)
    b = matrix(tape, (), 2 * s.k * rank, itemsize, trained=s.k * rank * itemsize)
    change = through(tape, through(tape, tape.cast(x, itemsize), b, 2 * rank), a, s.m)
    return tape.add(result, tape.cast(change, x.itemsize))


def unilora(c: Context, s: Site, o: Options, x: Tensor) -> Tensor:
    """LoRA whose A and B are picked out of one vector, which all modules share: no gradient is left here."""
    tape, itemsize, rank = c.tape, adapter_itemsize(c), o["r"]
    result = base_linear(c, x, s.m, s.bias)
    a, b = (matrix(tape, (), rank * size, itemsize, scratch=SORTED_BYTES * rank * size) for size in (s.k, s.m))
    change = through(tape, through(tape, tape.cast(x, itemsize), a, rank), b, s.m)
    return tape.cast(tape.add(result, change), x.itemsize)


SORTED_BYTES = 4 * 8
"""Indices that the gradient of an indexed vector sorts: index_put_with_sort_kernel in ATen/native/cuda/Indexing.cu."""


def tinylora(c: Context, s: Site, o: Options, x: Tensor) -> Tensor:
    """result + B(R(A(x))): A and B are frozen, R is a sum of small random matrices."""
    tape, itemsize, rank = c.tape, adapter_itemsize(c), min(o["r"], s.k, s.m)
    result = base_linear(c, x, s.m, s.bias)
    h = dense(tape, tape.cast(x, itemsize), rank, itemsize, False)
    h = through(tape, h, matrix(tape, (), rank * rank, itemsize, trained=o["u"] * itemsize), rank)
    return tape.cast(tape.add(result, dense(tape, h, s.m, itemsize, False)), x.itemsize)


def poly(c: Context, s: Site, o: Options, x: Tensor) -> Tensor:
    """result += B(A(x)) / r in place; every sequence has an A and a B, mixed of those of all skills."""
    tape, itemsize, rank = c.tape, adapter_itemsize(c), o["r"]
    result = base_linear(c, x, s.m, s.bias)
    sequences, trained = c.training.micro_batch_size, o["n_skills"] * rank * itemsize
    a, b = (matrix(tape, (), sequences * rank * size, itemsize, trained=trained * size) for size in (s.k, s.m))
    change = through(tape, through(tape, tape.cast(x, itemsize), a, rank), b, s.m)
    return tape.cast(add_in_place(tape, result, tape.scale(change)), x.itemsize)
