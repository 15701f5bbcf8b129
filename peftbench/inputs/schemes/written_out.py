"""Linear layers whose weight is written out in 16 bit, for the product and again for the input's gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftbench.memory import Part

if TYPE_CHECKING:
    from collections.abc import Callable

    from peftbench.estimate.tape.autograd import Tensor
    from peftbench.estimate.tape.modules import Context

HALF_BYTES = 2


def written_out(keeps_input: bool = False, widest: int = 1) -> Callable[[Context, Tensor, int], Tensor]:
    """A layer that frees what it wrote out; `keeps_input` where its function saves x without any need.

    While it is dequantized, `widest` matrices in 16 bit are alive.
    """

    def linear(c: Context, x: Tensor, out_features: int) -> Tensor:
        tape, written = c.tape, x.width * out_features * HALF_BYTES
        dequantizing = ((Part.DEQUANTIZATION, 0, widest * written),)
        low = tape.cast(x, HALF_BYTES)
        tape.scratch(*dequantizing[0])
        out = tape.tensor(out_features, HALF_BYTES, x.needs_grad)
        tape.scratch(Part.DEQUANTIZATION, 0, written)
        if x.needs_grad:
            tape.record((out,), (low,), (low,) if keeps_input else (), scratch=dequantizing)
        return tape.cast(out, x.itemsize)

    return linear


def kept_for_backward(widest: int = 1) -> Callable[[Context, Tensor, int], Tensor]:
    """A layer whose written weight is saved for the input's gradient, as autograd does by itself.

    While it is dequantized, `widest` matrices in 16 bit are alive, itself among them.
    """

    def linear(c: Context, x: Tensor, out_features: int) -> Tensor:
        tape, elements = c.tape, x.width * out_features
        low = tape.cast(x, HALF_BYTES)
        tape.scratch(Part.DEQUANTIZATION, 0, widest * elements * HALF_BYTES)
        weight = tape.tensor(0, HALF_BYTES, part=Part.DEQUANTIZATION, fixed_elements=elements)
        out = tape.tensor(out_features, HALF_BYTES, x.needs_grad)
        if x.needs_grad:
            tape.record((out,), (low,), (weight,))
        return tape.cast(out, x.itemsize)

    return linear
