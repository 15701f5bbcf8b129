"""HQQ: codes of 1 to 8 bits with a scale and a zero for each group, found without data.

Source: hqq 0.2.8 `core/quantize.py` (HQQLinear, Quantizer, HQQMatmulNoCacheDeq, which is its default backend),
HqqConfig of transformers 5.23, and PEFT 0.21 `tuners/lora/hqq.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftbench.inputs.schemes.gptq import WHOLE, groups_of
from peftbench.inputs.schemes.scheme import Scheme
from peftbench.inputs.schemes.written_out import HALF_BYTES, written_out

if TYPE_CHECKING:
    from peftbench.inputs.recipe import QuantizationSpec

IN_INT32 = 10
"""3-bit codes in an int32, whose last two bits are left."""


def codes_bytes(numel: int, quantization: QuantizationSpec) -> int:
    """Codes of several groups share an element: of an int32 where they have 3 bits, of a byte otherwise."""
    bits, group = quantization.bits or 4, quantization.blocksize or 64
    if bits != 3 or group == WHOLE:
        return -(-numel * bits // 8)
    return 4 * group * -(-numel // group // IN_INT32)


def constants_bytes(out_features: int, in_features: int, quantization: QuantizationSpec) -> int:
    """A scale and a zero in 16 bit for each group."""
    return 2 * HALF_BYTES * out_features * groups_of(in_features, quantization)


def _constants(quantization: QuantizationSpec) -> str:
    group = "row of weights" if quantization.blocksize == WHOLE else f"{quantization.blocksize} weights"
    return f"a 16-bit scale and a 16-bit zero for each {group}"


SCHEMES = {
    "hqq": Scheme(
        library="HQQ",
        bits=4,
        bits_choices=(1, 2, 3, 4, 8),
        packed_bytes=codes_bytes,
        constants_bytes=constants_bytes,
        constants=_constants,
        # W_r, W_r - zero and their product with scale are alive at once; save_for_backward(x, bias)
        forward=written_out(keeps_input=True, widest=3),
        written_itemsize=lambda quantization: HALF_BYTES,
        options=("blocksize", "bits"),
        blocksizes=(WHOLE, 8, 16, 32, 64, 128, 256, 512, 1024),
        blocksize=64,
        reaches_subclasses=True,
        adapters=("lora",),
        dora=True,
        lora_leaves_input=True,
        step_doubt="no steps with HQQ weights published",
        unshardable="no sharded run of HQQ's uint8 and int32 codes is modelled",
    )
}
