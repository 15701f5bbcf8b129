"""Quanto: int8 and float8 weights with a scale a row, int4 and int2 with a scale and a shift for each 128 weights.

Source: WeightQBytesTensor, WeightQBitsTensor, TinyGemmWeightQBitsTensor and QuantizedLinearFunction of optimum-quanto
0.2.7, the buffers of its QLinear, and QuantoHfQuantizer of transformers 5.23. PEFT's plain LoRA runs on QLinear.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftbench.inputs.schemes.scheme import Scheme
from peftbench.inputs.schemes.written_out import HALF_BYTES, written_out

if TYPE_CHECKING:
    from peftbench.inputs.recipe import QuantizationSpec

GROUP = 128
ACTIVATION_SCALES = 2 * HALF_BYTES
"""QLinear has a scale of its input and one of its output, whether these are quantized or not."""


def group_constants_bytes(out_features: int, in_features: int, quantization: QuantizationSpec) -> int:
    """A scale and a shift in 16 bit for each group."""
    return 2 * HALF_BYTES * -(-out_features * in_features // GROUP) + ACTIVATION_SCALES


BYTES = Scheme(
    library="Quanto",
    bits=8,
    constants_bytes=lambda out_features, in_features, quantization: HALF_BYTES * out_features + ACTIVATION_SCALES,
    constants=lambda quantization: "a 16-bit scale for each output",
    forward=written_out(keeps_input=True, widest=2),  # save_for_backward(input, other); weights * scales
    written_itemsize=lambda quantization: HALF_BYTES,
    reaches_subclasses=True,
    adapters=("lora",),
    plain_layers=True,
    step_doubt="no steps with Quanto's weights published",
    unshardable="no sharded run of Quanto's tensors is modelled",
)
BITS = BYTES._replace(
    bits=4,
    constants_bytes=group_constants_bytes,
    constants=lambda quantization: f"a 16-bit scale and shift for each {GROUP} weights",
)
SCHEMES = {"quanto-int8": BYTES, "quanto-float8": BYTES, "quanto-int4": BITS, "quanto-int2": BITS._replace(bits=2)}
