"""What an adapter on a linear layer adds to the graph, as PEFT's forward does it."""

from __future__ import annotations

from peftbench.estimate.autograd import Tensor
from peftbench.estimate.modules import Context, base_linear, dense


def linear(c: Context, name: str, x: Tensor, out_features: int, bias: bool = False) -> Tensor:
    """A named linear layer of the model with its adapter, if it has one."""
    if name not in c.targets:
        return base_linear(c, x, out_features, bias)
    return _lora(c, x, out_features, bias)


def _lora(c: Context, x: Tensor, out_features: int, bias: bool) -> Tensor:
    """LoRA: result + B(A(x)) * scaling.

    A float32 adapter casts x to float32 and keeps that copy for A's gradient, one copy for each target; the sum is
    made in float32 and cast back. Over a bitsandbytes layer PEFT clones the result first, and under autocast leaves
    x alone. Source: peft/tuners/lora/layer.py and bnb.py, 0.21.
    """
    assert c.adapter is not None  # only targets come here
    tape, rank, itemsize = c.tape, c.adapter.r or 8, c.adapter.dtype.bytes
    result = base_linear(c, x, out_features, bias)
    wanted = result.itemsize
    if c.quantization is None:
        cast = tape.cast(x, itemsize)
        result = tape.add(
            result, tape.scale(dense(tape, dense(tape, cast, rank, itemsize, True), out_features, itemsize, True))
        )
        return tape.cast(result, wanted)
    result = tape.copy(result)
    converts = tape.autocast is None
    cast = tape.cast(x, itemsize) if converts else x
    output = tape.scale(dense(tape, dense(tape, cast, rank, itemsize, True), out_features, itemsize, True))
    if converts:
        output = tape.cast(output, wanted)
    return tape.add(result, output)
