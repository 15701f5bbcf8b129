"""GPTQ: a checkpoint of 4-bit codes with a scale and a zero for each group of inputs.

Source: the buffers qweight, scales, qzeros and g_idx of AutoGPTQ's QuantLinear.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftbench.inputs.schemes.bitsandbytes import FOUR_BIT
from peftbench.inputs.schemes.scheme import Scheme

if TYPE_CHECKING:
    from peftbench.inputs.recipe.quantization import QuantizationSpec

MOVED_BYTES = 10.7 * 2.5
"""Bytes moved for each weight of AutoGPTQ, which is unpacked by kernels of its own."""


def group_constants_bytes(out_features: int, in_features: int, quantization: QuantizationSpec) -> int:
    """A 16-bit scale and a 4-bit zero for each group of inputs of each output, an int32 group index for each input."""
    assert quantization.blocksize is not None  # the scheme has one
    groups = -(-in_features // quantization.blocksize) * out_features
    return 2 * groups + -(-groups // 2) + 4 * in_features


def _group_constants(quantization: QuantizationSpec) -> str:
    return f"a float16 scale and a 4-bit zero for each {quantization.blocksize} weights, an index a row"


SCHEMES = {
    "gptq": Scheme(
        library="GPTQ",
        bits=4,
        constants_bytes=group_constants_bytes,
        constants=_group_constants,
        forward=FOUR_BIT.forward,
        written_itemsize=FOUR_BIT.written_itemsize,
        options=FOUR_BIT.options,
        blocksizes=FOUR_BIT.blocksizes,
        blocksize=64,
        checkpoint=True,
        lora_copies=True,
        others_copy=True,
        lora_leaves_input=True,
        moved_bytes=MOVED_BYTES,
        launches=False,
    )
}
