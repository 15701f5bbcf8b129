"""Operations on the adapters' own matrices, whose size does not grow with the tokens, and on vectors they train."""

from __future__ import annotations

from collections.abc import Sequence

from peftbench.estimate.tape.autograd import FLOAT32, Tape, Tensor
from peftbench.memory import Part


def constant(tape: Tape, elements: int, itemsize: int = FLOAT32) -> Tensor:
    """A matrix without gradient: an identity, a copy of frozen weights."""
    return tape.tensor(0, itemsize, fixed_elements=elements)


def matrix(
    tape: Tape, inputs: Sequence[Tensor], elements: int, itemsize: int = FLOAT32, saved: Sequence[Tensor] = (), *,
    trained: int = 0, scratch: int = 0, aliases: Sequence[Tensor] = (),
) -> Tensor:  # fmt: skip
    """A matrix computed from trained parameters: `trained` bytes of gradients are left, `scratch` come and go."""
    out = tape.tensor(0, itemsize, True, fixed_elements=elements)
    sizes = ((tape.part, 0, scratch),) if scratch else ()
    tape.record(
        (out,), inputs, saved, aliases=[x.key for x in aliases], scratch=sizes, parameter_gradients=trained,
        saves_constant=True,
    )  # fmt: skip
    return out


def lowered(tape: Tape, x: Tensor) -> Tensor:
    """What a matrix product takes under autocast: its operand in the lower precision."""
    if tape.autocast is None or x.itemsize == tape.autocast:
        return x
    if not x.fixed_elements:
        return tape.cast(x, tape.autocast)
    out = tape.tensor(0, tape.autocast, x.needs_grad, fixed_elements=x.fixed_elements)
    if x.needs_grad:
        tape.record((out,), (x,))
    return out


def through(tape: Tape, x: Tensor, weight: Tensor, out_features: int) -> Tensor:
    """F.linear with a computed weight: x is saved for the weight's gradient, the weight for that of x."""
    low, low_weight = lowered(tape, x), lowered(tape, weight)
    saved = [low] if weight.needs_grad else []
    saved += [low_weight] if x.needs_grad else []
    return tape.new((low, low_weight), out_features, low.itemsize, saved)


def times_vector(tape: Tape, x: Tensor, trained: int, itemsize: int = FLOAT32, vector_first: bool = True) -> Tensor:
    """v * x with a vector of `trained` bytes: x is saved.

    Backward makes both products in full and in the wider type, then, in the order of the factors, sums the vector's
    and casts that of x. Source: validate_outputs in pytorch/torch/csrc/autograd/engine.cpp. What the sum sets aside
    comes when x is free, or its product in the wider type.
    """
    out = tape.output(x.width, max(x.itemsize, itemsize), True)
    scratch, free = out.per_token, x.per_token
    if x.needs_grad and x.itemsize < out.itemsize:
        scratch += out.per_token - (x.per_token if vector_first else 0)
        free = x.per_token if vector_first else out.per_token
    partial = max(tape.device.partial_sums_bytes(x.width) - tape.device.rows * free, 0)
    sizes = ((tape.part, scratch, 0), (Part.WORKSPACE, 0, partial))
    tape.record((out,), (x,), (x,), scratch=sizes, parameter_gradients=trained, saves_constant=True)
    return out


def add_in_place(tape: Tape, result: Tensor, x: Tensor) -> Tensor:
    """result += x: the sum keeps the storage and the type of `result`."""
    total = Tensor(result.storage, result.width, result.itemsize, True, tape.next_key())
    aliases = [t.key for t in (result, x) if t.itemsize == result.itemsize]
    tape.record((total,), (result, x), aliases=aliases)
    return total
