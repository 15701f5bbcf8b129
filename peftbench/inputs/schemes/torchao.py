"""torchao: int8 and float8 weights with a scale a row, int4 with a scale and a zero a group, as tensors of its own.

Source: Int8Tensor, Float8Tensor and Int4Tensor of torchao 0.18 `quantization/quantize_/workflows/`; TorchAoHfQuantizer
of transformers 5.23, which trains on 8 bit only; PEFT 0.21 `tuners/lora/torchao.py`, which is its plain layer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftbench.inputs.schemes.gptq import groups_of
from peftbench.inputs.schemes.scheme import Scheme
from peftbench.inputs.schemes.written_out import HALF_BYTES, kept_for_backward

if TYPE_CHECKING:
    from peftbench.inputs.recipe import QuantizationSpec

SCALE_BYTES = 4


def int4_constants_bytes(out_features: int, in_features: int, quantization: QuantizationSpec) -> int:
    """A scale and a zero in 16 bit for each group of inputs of each output."""
    return 2 * HALF_BYTES * out_features * groups_of(in_features, quantization)


INT8 = Scheme(
    library="torchao",
    bits=8,
    constants_bytes=lambda out_features, in_features, quantization: (SCALE_BYTES + 1) * out_features,
    constants=lambda quantization: "a float32 scale and an int8 zero for each output",
    forward=kept_for_backward(),  # mm(x, qdata.to(x.dtype).t()) * scale: autograd saves the cast
    written_itemsize=lambda quantization: HALF_BYTES,
    reaches_subclasses=True,
    adapters=("lora",),
    plain_layers=True,
    step_doubt="no steps with torchao's weights published",
    unshardable="no sharded run of torchao's tensors is modelled",
)
SCHEMES = {
    "torchao-int8": INT8,
    "torchao-float8": INT8._replace(
        constants_bytes=lambda out_features, in_features, quantization: SCALE_BYTES * out_features,
        constants=lambda quantization: "a float32 scale for each output",
        forward=kept_for_backward(widest=5),  # in float32, its product with the scale, and that in 16 bit
    ),
    "torchao-int4": INT8._replace(
        bits=4,
        constants_bytes=int4_constants_bytes,
        constants=lambda quantization: f"a 16-bit scale and zero for each {quantization.blocksize} weights",
        options=("blocksize",),
        blocksizes=(32, 64, 128, 256),
        blocksize=128,
        untrainable="PEFT's LoRA refuses torchao's int4 weights (TorchaoLoraLinear), transformers trains on 8 bit only",
    ),
}
