"""What adapters with a trained vector or a sum of blocks add to the graph: IA3, BEFT, RoAd, MiSS.

Each function is named after its PEFT type; its source is `forward` in peft/tuners/<type>/layer.py of PEFT 0.21,
and bnb.py there where bitsandbytes layers differ.
"""

from __future__ import annotations

from peftbench.estimate.peft_forward.lora import adapter_itemsize
from peftbench.estimate.peft_forward.matrices import constant, matrix, through, times_vector
from peftbench.estimate.peft_types.shapes import Options, Site
from peftbench.estimate.tape.autograd import FLOAT32, Tensor
from peftbench.estimate.tape.modules import Context, base_linear, dense


def ia3(c: Context, s: Site, o: Options, x: Tensor) -> Tensor:
    """Scales the input of feed-forward targets and the output of others by a trained vector."""
    if c.quantization is not None:
        return _ia3_quantized(c, s, x)
    tape, itemsize = c.tape, adapter_itemsize(c)
    if s.feedforward:
        wide = tape.cast(x, itemsize)
        interm = tape.cast(times_vector(tape, wide, s.k * itemsize, itemsize, False), x.itemsize)
        return base_linear(c, interm, s.m, s.bias)
    result = base_linear(c, x, s.m, s.bias)
    return tape.cast(times_vector(tape, result, s.m * itemsize, itemsize, False), result.itemsize)


def _ia3_quantized(c: Context, s: Site, x: Tensor) -> Tensor:
    """Converts x to float32 before the layer, so a 16-bit stream is multiplied and cloned in float32."""
    assert c.quantization is not None  # the caller asks
    tape, itemsize = c.tape, adapter_itemsize(c)
    wide = tape.cast(x, FLOAT32) if tape.autocast is None else x
    if s.feedforward:
        result = base_linear(c, times_vector(tape, wide, s.k * itemsize, itemsize, False), s.m, s.bias)
    else:
        result = base_linear(c, wide, s.m, s.bias)
        result = times_vector(tape, result, s.m * itemsize, itemsize, False)
    return tape.copy(result) if c.quantization.scheme.others_copy else result


def miss(c: Context, s: Site, o: Options, x: Tensor) -> Tensor:
    """result + sum of x's blocks @ D: x is cast but only its block sums are saved."""
    if o["init_weights"] == "bat":
        return _miss_bat(c, s, o, x)
    tape, itemsize, rank = c.tape, adapter_itemsize(c), o["r"]
    result = base_linear(c, x, s.m, s.bias)
    if c.quantization is not None and c.quantization.scheme.others_copy:
        result = tape.copy(result)
    padded = x if s.k % rank == 0 else tape.new((x,), s.k + rank - s.k % rank, x.itemsize)
    cast = tape.cast(padded, itemsize)
    summed = tape.new((cast,), rank, itemsize)
    result = tape.add(result, dense(tape, summed, s.m, itemsize, True))
    return tape.cast(result, x.itemsize)


def _miss_bat(c: Context, s: Site, o: Options, x: Tensor) -> Tensor:
    """F.linear(x, W + W's blocks @ D + D), in the adapter's type: the blocks are copied, and saved for D's gradient."""
    tape, elements, itemsize = c.tape, s.k * s.m, adapter_itemsize(c)
    weight = constant(tape, elements, c.weight_itemsize)
    wide = weight if c.weight_itemsize == itemsize else constant(tape, elements, itemsize)
    low = tape.autocast or itemsize
    blocks = constant(tape, elements, low)
    repeated = elements * low  # D, once for every block that it multiplies
    tape.scratch(tape.part, 0, repeated)
    product = matrix(tape, (), elements, low, (blocks,), trained=s.m * o["r"] * itemsize, scratch=repeated)
    moved = matrix(tape, (product,), elements, itemsize)
    del product, blocks
    delta_weight = matrix(tape, (moved,), elements, itemsize)
    del moved, wide
    summed = matrix(tape, (delta_weight,), elements, max(itemsize, c.weight_itemsize), aliases=(delta_weight,))
    del weight
    return tape.cast(through(tape, tape.cast(x, summed.itemsize), summed, s.m), x.itemsize)


def road(c: Context, s: Site, o: Options, x: Tensor) -> Tensor:
    """Rotates pairs of the result: result * cos + rotated result * sin, both factors saved in float32."""
    tape, itemsize = c.tape, adapter_itemsize(c)
    result = base_linear(c, x, s.m, s.bias)
    wanted = result.itemsize
    result = tape.cast(result, itemsize)
    trained = s.m * itemsize
    rotate_half_x = _rotate_pairs(c, result)
    turned = times_vector(tape, result, trained, itemsize, False)
    result = tape.add(turned, times_vector(tape, rotate_half_x, trained, itemsize, False))
    del turned
    return tape.cast(result, wanted)


def _rotate_pairs(c: Context, x: Tensor) -> Tensor:
    """torch.stack((-x2, x1)) of halves of each group."""
    tape, half = c.tape, x.width // 2
    x1, x2 = tape.slice(x, half), tape.slice(x, half)
    return tape.concatenate((tape.scale(x2), x1))


def beft(c: Context, s: Site, o: Options, x: Tensor) -> Tensor:
    """(result + bias): nothing saved, but the sum is in the wider type."""
    tape, itemsize = c.tape, adapter_itemsize(c)
    result = base_linear(c, x, s.m, s.bias)
    out = tape.tensor(s.m, max(itemsize, result.itemsize), True)
    tape.record((out,), (result,), parameter_gradients=s.m * itemsize)
    return tape.cast(out, result.itemsize)
