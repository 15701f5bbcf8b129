"""What adapters that compute a whole matrix add to the graph: the matrix is made anew in every forward pass.

Each function is named after its PEFT type; its source is `forward` and `get_delta_weight` in
peft/tuners/<type>/layer.py of PEFT 0.21.
"""

from __future__ import annotations

from math import prod

from peftbench.estimate.peft_forward.lora import adapter_itemsize
from peftbench.estimate.peft_forward.matrices import constant, lowered, matrix, through, times_vector
from peftbench.estimate.peft_types import shapes
from peftbench.estimate.peft_types.shapes import Options, Site
from peftbench.estimate.tape.autograd import FLOAT32, Tape, Tensor
from peftbench.estimate.tape.modules import Context, base_linear, dense

COMPLEX64, INT64 = 8, 8


def loha(c: Context, s: Site, o: Options, x: Tensor) -> Tensor:
    """result + F.linear(x, (w1a w1b) * (w2a w2b) * scale): both products are made again in backward."""
    tape, elements = c.tape, s.k * s.m
    itemsize = tape.autocast or adapter_itemsize(c)
    result = base_linear(c, x, s.m, s.bias)
    size = elements * itemsize
    tape.scratch(tape.part, 0, 3 * size)
    unscaled = constant(tape, elements, itemsize)
    trained = 2 * o["r"] * (s.k + s.m) * adapter_itemsize(c)
    # Backward runs outside autocast: its products are in the parameters' type.
    scratch = size + 3 * elements * adapter_itemsize(c)
    diff_weight = matrix(tape, (), elements, itemsize, trained=trained, scratch=scratch)
    del unscaled
    return _with_delta(c, result, x, diff_weight)


def _with_delta(c: Context, result: Tensor, x: Tensor, delta_weight: Tensor) -> Tensor:
    """result + F.linear(x in the matrix's type, matrix), cast back."""
    tape = c.tape
    change = through(tape, tape.cast(x, delta_weight.itemsize), delta_weight, result.width)
    return tape.cast(tape.add(result, change), x.itemsize)


def lokr(c: Context, s: Site, o: Options, x: Tensor) -> Tensor:
    """result + F.linear(x, kron(w1, w2) * scale)."""
    tape, elements, itemsize = c.tape, s.k * s.m, adapter_itemsize(c)
    result = base_linear(c, x, s.m, s.bias)
    size = elements * itemsize
    trained = sum(prod(shape) for shape in shapes.lokr(s, o)) * itemsize
    rebuild = matrix(tape, (), elements, itemsize, trained=trained, scratch=2 * size)
    delta_weight = matrix(tape, (rebuild,), elements, itemsize)
    del rebuild
    return _with_delta(c, result, x, delta_weight)


def hira(c: Context, s: Site, o: Options, x: Tensor) -> Tensor:
    """result + F.linear(x, W * (A B).T): product and scaled weight are both whole matrices."""
    tape, elements, itemsize = c.tape, s.k * s.m, adapter_itemsize(c)
    result = base_linear(c, x, s.m, s.bias)
    product = tape.autocast or itemsize
    prod_ab = matrix(tape, (), elements, product, trained=o["r"] * (s.k + s.m) * itemsize)
    cast = tape.cast(x, itemsize)
    scaled = matrix(tape, (prod_ab,), elements, max(product, c.weight_itemsize))
    change = through(tape, cast, scaled, s.m)
    return tape.cast(tape.add(result, change), result.itemsize)


def fourierft(c: Context, s: Site, o: Options, x: Tensor) -> Tensor:
    """result + F.linear(x, ifft2(spectrum).real * scaling): the transform needs complex copies of the matrix."""
    tape, elements = c.tape, s.k * s.m
    result = base_linear(c, x, s.m, s.bias)
    delta_weight = _inverse_transform(tape, elements, o["n_frequency"] * adapter_itemsize(c))
    delta_weight = _cast_matrix(tape, delta_weight, adapter_itemsize(c))
    return _with_delta(c, result, x, delta_weight)


def _inverse_transform(tape: Tape, elements: int, trained: int) -> Tensor:
    """A transform of a complex copy, forward and backward, beside a work area of cuFFT's as large."""
    dense_spectrum = constant(tape, elements, FLOAT32)
    scratch = (3 if tape.device.is_cuda else 2) * elements * COMPLEX64
    tape.scratch(tape.part, 0, scratch)
    transformed = constant(tape, elements, COMPLEX64)
    delta_weight = matrix(tape, (), elements, FLOAT32, trained=trained, scratch=scratch)
    del transformed, dense_spectrum
    return delta_weight


def _cast_matrix(tape: Tape, x: Tensor, itemsize: int) -> Tensor:
    return x if x.itemsize == itemsize else matrix(tape, (x,), x.fixed_elements, itemsize)


def hra(c: Context, s: Site, o: Options, x: Tensor) -> Tensor:
    """F.linear(x, W @ H): the product of r reflections, each of which saves a matrix of k x k."""
    tape, itemsize = c.tape, adapter_itemsize(c)
    square = s.k * s.k
    identity = constant(tape, square, FLOAT32)
    delta_weight = _reflections(tape, s, o, itemsize)
    low, low_delta = lowered(tape, identity), lowered(tape, delta_weight)
    new_weight = matrix(tape, (low_delta,), square, low.itemsize, (low,))
    del identity, low, low_delta
    # orig_weight.to(new_weight.dtype) is saved for the gradient of H.
    orig_weight = constant(tape, s.k * s.m, new_weight.itemsize) if c.weight_itemsize != new_weight.itemsize else None
    rotated = matrix(tape, (new_weight,), s.k * s.m, new_weight.itemsize, (orig_weight,) if orig_weight else ())
    del new_weight
    cast = tape.cast(x, rotated.itemsize)
    result = through(tape, cast, rotated, s.m)
    return tape.cast(result, x.itemsize)


def _reflections(tape: Tape, s: Site, o: Options, itemsize: int) -> Tensor:
    """weight - 2 * weight @ u @ u.T for each u, from the identity on: saves 2 * weight for u's gradient."""
    square = s.k * s.k
    weight = constant(tape, square, itemsize)
    for _ in range(o["r"]):
        flows = (weight,) if weight.needs_grad else ()
        doubled = lowered(tape, matrix(tape, flows, square, itemsize))
        column = matrix(tape, (doubled,), s.k, doubled.itemsize, (doubled,), trained=s.k * itemsize)
        outer = matrix(tape, (column,), square, doubled.itemsize, (column,))
        del doubled
        weight = matrix(tape, (*flows, outer), square, itemsize, aliases=flows)
        del outer, flows
    return weight


def oft(c: Context, s: Site, o: Options, x: Tensor) -> Tensor:
    """base(x rotated by blocks): einsum's output is laid out block by block and copied back."""
    tape, itemsize = c.tape, adapter_itemsize(c)
    cast = tape.cast(x, itemsize)
    rotated = _rotated_by_blocks(tape, s, o, cast)
    del cast
    result = base_linear(c, tape.cast(rotated, x.itemsize), s.m, s.bias)
    return tape.cast(result, x.itemsize)


NEUMANN_MATRICES = 3
"""Skew matrix, its square and its cube are saved by the products of num_cayley_neumann_terms = 5."""


def _rotated_by_blocks(tape: Tape, s: Site, o: Options, x: Tensor) -> Tensor:
    block = shapes.oft_block(s, o)
    blocks = 1 if o["block_share"] else s.k // block
    elements, itemsize = blocks * block * block, x.itemsize
    powers = constant(tape, NEUMANN_MATRICES * elements, itemsize)
    trained = blocks * block * (block - 1) // 2 * itemsize
    scratch = 2 * elements * itemsize
    orth_rotate = matrix(tape, (), elements, itemsize, (powers,), trained=trained, scratch=scratch)
    del powers
    if o["block_share"]:
        orth_rotate = matrix(tape, (orth_rotate,), s.k * block, itemsize)
    x_rotated_reshaped = through(tape, x, orth_rotate, s.k)
    x_rotated = tape.copy(x_rotated_reshaped)
    return tape.cast(x_rotated, itemsize)


BOFT_MATRICES = 3
"""torch.linalg.solve saves its matrix, the factors of that and the solution; all are block diagonals."""


def boft(c: Context, s: Site, o: Options, x: Tensor) -> Tensor:
    """base(x @ R) * s with R as a dense k x k matrix, whose factors live until this returns."""
    tape, itemsize, square = c.tape, adapter_itemsize(c), s.k * s.k
    boft_rotation = constant(tape, square, x.itemsize)
    trained = (sum(prod(shape) for shape in shapes.boft(s, o)) - s.m) * itemsize
    solved = constant(tape, BOFT_MATRICES * s.k * shapes.boft_block(s, o), FLOAT32)
    block_diagonal = matrix(tape, (), square, FLOAT32, (solved,), trained=trained)
    copied = x.itemsize != FLOAT32 or not c.training.moves_model
    boft_p = [constant(tape, square, x.itemsize)] if copied else []  # boft_P.to(x)
    block_diagonal = _cast_matrix(tape, block_diagonal, x.itemsize)
    butterfly = matrix(tape, (block_diagonal,), square, x.itemsize, boft_p)
    butterfly = matrix(tape, (butterfly,), square, x.itemsize, boft_p)
    boft_rotation = matrix(tape, (butterfly,), square, x.itemsize, (boft_rotation,))
    x_rotated = through(tape, x, boft_rotation, s.k)
    result = base_linear(c, x_rotated, s.m, s.bias)
    if s.bias:
        result = tape.scale(result)
    result = times_vector(tape, result, s.m * itemsize, itemsize, False)
    if s.bias:
        result = tape.scale(result)
    return tape.cast(result, x.itemsize)


def randlora(c: Context, s: Site, o: Options, x: Tensor) -> Tensor:
    """result + F.linear(F.linear(x, B), A) * scaling with full-rank bases, of which the smaller one is scaled."""
    tape, itemsize, smaller = c.tape, adapter_itemsize(c), min(s.k, s.m)
    bases = shapes.ceil_div(smaller, o["r"]) * o["r"]
    result = base_linear(c, x, s.m, s.bias)
    trained = sum(prod(shape) for shape in shapes.randlora(s, o)) * itemsize
    size = bases * smaller * itemsize
    tape.scratch(tape.part, 0, 2 * size)
    update_a = matrix(tape, (), bases * smaller, itemsize, trained=trained, scratch=2 * size)
    cast = tape.cast(x, itemsize)
    if smaller == s.k:
        change = tape.scale(dense(tape, through(tape, cast, update_a, bases), s.m, itemsize, False))
    else:
        change = tape.scale(through(tape, dense(tape, cast, bases, itemsize, False), update_a, s.m))
    return tape.cast(tape.add(result, change), x.itemsize)


def c3a(c: Context, s: Site, o: Options, x: Tensor) -> Tensor:
    """result += circular convolutions of x's blocks: float32 x is saved, the transforms are complex temporaries."""
    tape, itemsize = c.tape, adapter_itemsize(c)
    result = base_linear(c, x, s.m, s.bias)
    wide = tape.cast(x, FLOAT32)
    kernel = s.k * s.m // o["block_size"]
    tape.scratch(tape.part, (s.k + 2 * s.m) * COMPLEX64, 2 * kernel * COMPLEX64)
    convolved = tape.tensor(s.m, FLOAT32, True)
    scratch = ((tape.part, (s.k + 2 * s.m) * COMPLEX64, 2 * kernel * COMPLEX64),)
    tape.record((convolved,), (wide,), (wide,), scratch=scratch, parameter_gradients=kernel * itemsize)
    del wide
    scaled = tape.scale(convolved)
    del convolved
    total = Tensor(result.storage, result.width, result.itemsize, True, tape.next_key())
    low = tape.cast(scaled, result.itemsize)
    tape.record((total,), (result, low), aliases=(result.key, low.key))
    return tape.cast(total, x.itemsize)


def waveft(c: Context, s: Site, o: Options, x: Tensor) -> Tensor:
    """result + F.linear(x, inverse wavelet transform of a sparse matrix): a transposed convolution, which saves it."""
    tape, elements, itemsize = c.tape, s.k * s.m, adapter_itemsize(c)
    result = base_linear(c, x, s.m, s.bias)
    dense_spectrum = matrix(tape, (), elements, itemsize, trained=o["n_frequency"] * itemsize)
    bands = matrix(tape, (dense_spectrum,), elements, itemsize)
    restored = matrix(tape, (bands,), elements, itemsize, (bands,))
    del bands
    delta_weight = matrix(tape, (restored,), elements, itemsize)
    del restored, dense_spectrum
    return _with_delta(c, result, x, delta_weight)


def glora(c: Context, s: Site, o: Options, x: Tensor) -> Tensor:
    """result + F.linear(x, W + W * A + B) - result, in the type of the base weights."""
    tape = c.tape
    base_result = base_linear(c, x, s.m, s.bias)
    weights = _weights_of_glora(c, s, o)
    adapted = through(tape, x, weights[-1], s.m)
    result = tape.add(base_result, adapted)
    result = tape.add(result, tape.scale(base_result))
    del weights
    return result


def _weights_of_glora(c: Context, s: Site, o: Options) -> list[Tensor]:
    """A and B, W + W * A and its sum with B; where A and B are vectors, their gradients are sums of a whole matrix."""
    tape, elements, itemsize = c.tape, s.k * s.m, c.weight_itemsize
    low_rank = o["config_A_B"] == "lora"
    paths = [_low_rank_matrix(c, s, o) for _ in "AB"] if low_rank else []
    trained, scratch = (0, 0) if low_rank else (s.m * adapter_itemsize(c), elements * itemsize)
    weighted = matrix(tape, paths[:1], elements, itemsize, trained=trained, scratch=scratch)
    partial = matrix(tape, (weighted,), elements, itemsize, aliases=(weighted,))
    del weighted
    summed = (partial, *paths[1:])
    return [*paths, partial, matrix(tape, summed, elements, itemsize, aliases=summed)]


def _low_rank_matrix(c: Context, s: Site, o: Options) -> Tensor:
    """Xd @ Xu in the type of the base weights."""
    tape, itemsize = c.tape, adapter_itemsize(c)
    product = matrix(tape, (), s.k * s.m, tape.autocast or itemsize, trained=o["r"] * (s.k + s.m) * itemsize)
    return _cast_matrix(tape, product, c.weight_itemsize)


def shira(c: Context, s: Site, o: Options, x: Tensor) -> Tensor:
    """F.linear(x, W + sparse): a copy of the weight, to which single values are added in their own type."""
    tape, elements, itemsize = c.tape, s.k * s.m, adapter_itemsize(c)
    trained = o["r"] * (s.k + s.m) * itemsize
    new_weight = constant(tape, elements, c.weight_itemsize)
    values = constant(tape, o["r"] * (s.k + s.m), SPARSE_BYTES)
    wide = elements * itemsize if c.weight_itemsize != itemsize else 0
    tape.scratch(tape.part, 0, 2 * wide)
    changed = matrix(tape, (), elements, c.weight_itemsize, (values,), trained=trained, scratch=wide)
    del new_weight, values
    return through(tape, x, changed, s.m)


SPARSE_BYTES = 2 * INT64 + 3 * FLOAT32
"""Bytes for each value: its row and column, and itself as it is scaled, sorted and saved."""


def supertuning(c: Context, s: Site, o: Options, x: Tensor) -> Tensor:
    """F.linear(x, W with values added at some places): no product with W itself, and int64 places for the gradient."""
    tape, elements, number = c.tape, s.k * s.m, shapes.supertuning_values(s, o)
    places = constant(tape, number, INT64)
    trained = number * adapter_itemsize(c)
    weight = matrix(tape, (), elements, c.weight_itemsize, (places,), trained=trained)
    result = through(tape, x, weight, s.m)
    del weight, places
    if not o["r"]:
        return result
    wide = tape.cast(x, FLOAT32)
    change = dense(tape, dense(tape, wide, o["r"], FLOAT32, True), s.m, FLOAT32, True)
    return tape.add(result, tape.cast(tape.scale(change), result.itemsize))


def peanut(c: Context, s: Site, o: Options, x: Tensor) -> Tensor:
    """result + F.linear(x, B(act(A(W.T))) * scaling): a copy of the weight is saved for the gradient of A."""
    tape, elements, itemsize, rank = c.tape, s.k * s.m, adapter_itemsize(c), o["r"]
    result = base_linear(c, x, s.m, s.bias)
    base_weight_t = constant(tape, elements, itemsize) if c.weight_itemsize != itemsize else None
    low = [lowered(tape, base_weight_t)] if base_weight_t else []
    product, trained = tape.autocast or itemsize, rank * s.m * itemsize
    inner = matrix(tape, (), s.k * rank, product, low, trained=trained)
    for _ in range(2 * o["depth"]):
        inner = matrix(tape, (inner,), s.k * rank, product, (inner,), trained=rank * rank * itemsize)
    delta_w = matrix(tape, (inner,), elements, product, (inner,), trained=trained)
    scaled = matrix(tape, (delta_w,), elements, product)
    del base_weight_t, low, inner, delta_w
    change = through(tape, tape.cast(x, product), scaled, s.m)
    return tape.add(result, tape.cast(change, result.itemsize))
