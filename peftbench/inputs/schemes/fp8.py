"""FP8: a byte a weight, with a float32 scale for each block of 128 × 128 (DeepSeek), each row (FBGEMM) or the matrix.

Source: FP8Linear, FP8LinearFunction and FP8Experts in transformers 5.23 `integrations/finegrained_fp8.py`,
FbgemmFp8Linear in `integrations/fbgemm_fp8.py`, and their quantizers. PEFT's plain LoRA runs on FP8Linear.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftbench.inputs.schemes.gptq import WHOLE
from peftbench.inputs.schemes.scheme import Scheme
from peftbench.memory import Part

if TYPE_CHECKING:
    from peftbench.estimate.tape.autograd import Tensor
    from peftbench.estimate.tape.modules import Context
    from peftbench.inputs.recipe import QuantizationSpec

HALF_BYTES = 2
SCALE_BYTES = 4


def constants_bytes(out_features: int, in_features: int, quantization: QuantizationSpec) -> int:
    """A float32 for each square block, cut off at the edges, or one for the matrix."""
    side = quantization.blocksize
    assert side is not None  # the scheme has one
    return SCALE_BYTES if side == WHOLE else SCALE_BYTES * -(-out_features // side) * -(-in_features // side)


def _constants(quantization: QuantizationSpec) -> str:
    side = quantization.blocksize
    return f"a float32 scale for each {'matrix' if side == WHOLE else f'{side} × {side} weights'}"


def linear(c: Context, x: Tensor, out_features: int) -> Tensor:
    """Codes are multiplied with x in FP8; the input's gradient needs the weight in its type. x is not saved."""
    tape, elements = c.tape, x.width * out_features
    tape.scratch(Part.DEQUANTIZATION, x.width, 0)
    out = tape.tensor(out_features, x.itemsize, x.needs_grad)
    if x.needs_grad:
        tape.record((out,), (x,), scratch=((Part.DEQUANTIZATION, 0, elements * x.itemsize),))
    return out


FP8 = Scheme(
    library="FP8",
    bits=8,
    constants_bytes=constants_bytes,
    constants=_constants,
    forward=linear,
    written_itemsize=lambda quantization: 0,
    options=("blocksize",),
    blocksizes=(WHOLE, 128),
    blocksize=128,
    checkpoint=True,
    dequantizes=True,
    capability=(8, 9),
    reaches_subclasses=True,
    reaches_experts=True,
    adapters=("lora",),
    plain_layers=True,
    step_doubt="no steps with FP8 weights published",
    unshardable="no sharded run of FP8 parameters is modelled",
)
SCHEMES = {
    "fp8": FP8,
    "fbgemm-fp8": FP8._replace(
        library="FBGEMM",
        constants_bytes=lambda out_features, in_features, quantization: SCALE_BYTES * (out_features + 1),
        constants=lambda quantization: "a float32 scale for each output, a bound of the input's",
        options=(),
        blocksizes=(),
        blocksize=None,
        dequantizes=False,
        capability=(9, 0),
        untrainable="transformers does not train on FBGEMM's FP8 weights (FbgemmFp8HfQuantizer.is_trainable)",
    ),
}
