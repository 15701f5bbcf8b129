"""Short convolutions over tokens on the tape.

Local variables are those of transformers' code, because they decide how long a tensor lives.
"""

from __future__ import annotations

from peftbench.estimate.peft_forward.dispatch import linear
from peftbench.estimate.tape.autograd import Tensor
from peftbench.estimate.tape.modules import Context
from peftbench.inputs.model.parts import ShortConv


def short_conv(c: Context, hidden_states: Tensor) -> Tensor:
    """LFM2: C * conv(B * x), of which one projection makes all three."""
    part, tape, path = c.layer.mixer, c.tape, c.model.family.layout.recurrent
    assert isinstance(part, ShortConv)
    BCx = linear(c, f"{path}in_proj", masked(c, hidden_states), 3 * part.width, part.bias)
    B, C, x = tape.split(BCx, (part.width,) * 3)
    convolved = causal_convolution(c, tape.multiply(B, x), part.kernel, part.bias)
    return linear(c, f"{path}out_proj", tape.multiply(C, convolved), c.model.hidden_size, part.bias)


def masked(c: Context, hidden_states: Tensor) -> Tensor:
    """apply_mask_to_padding_states: where sequences are padded, the stream times a mask."""
    return c.tape.scale(hidden_states) if c.training.padded else hidden_states


def causal_convolution(c: Context, x: Tensor, kernel: int, bias: bool, activated: bool = False) -> Tensor:
    """F.conv1d of each channel, padded by all taps but one, and cut to the tokens; torch's path, without a kernel.

    Its input is saved even where the weight is frozen: one formula gives all gradients of a convolution.
    """
    tape = c.tape
    low = tape.cast(x, c.unquantized_itemsize)
    low = low if tape.autocast is None else tape.cast(low, tape.autocast)
    padded = tape.output(x.width, low.itemsize, low.needs_grad or c.full)
    if padded.needs_grad:
        gradients = x.width * (kernel + bias) * c.unquantized_itemsize if c.full else 0
        tape.record((padded,), (low,), (low,), parameter_gradients=gradients)
    cut = tape.slice(padded, x.width)
    del padded
    return tape.cast(tape.unary(cut, "input") if activated else cut, x.itemsize)
