"""GPTQ: a checkpoint of 4-bit codes with a scale and a zero for each group of inputs.

Source: the buffers qweight, scales, qzeros and g_idx of AutoGPTQ's QuantLinear, its forward without fused kernels, and
PEFT 0.21
`tuners/lora/gptq.py`, which runs as on a plain layer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftbench.inputs.schemes.scheme import Scheme
from peftbench.memory import Part

if TYPE_CHECKING:
    from peftbench.estimate.tape.autograd import Tensor
    from peftbench.estimate.tape.modules import Context
    from peftbench.inputs.recipe import QuantizationSpec

HALF_BYTES = 2
"""Scales, and the weights that they make of the codes, are in 16 bit whatever the recipe."""
WHOLE = -1
"""group_size of a checkpoint whose rows are one group each."""
MOVED_BYTES = 10.7 * 2.5
"""Bytes moved for each weight of AutoGPTQ, which is unpacked by kernels of its own."""


def group_constants_bytes(out_features: int, in_features: int, quantization: QuantizationSpec) -> int:
    """A 16-bit scale and a 4-bit zero for each group of inputs of each output, an int32 group index for each input."""
    groups = groups_of(in_features, quantization) * out_features
    return HALF_BYTES * groups + -(-groups // 2) + 4 * in_features


def groups_of(in_features: int, quantization: QuantizationSpec) -> int:
    """Groups of the inputs of one output, each with a scale and a zero; a group_size of -1 is all inputs."""
    assert quantization.blocksize is not None  # the scheme has one
    return 1 if quantization.blocksize == WHOLE else -(-in_features // quantization.blocksize)


def group_words(quantization: QuantizationSpec) -> str:
    """What a group's constants are."""
    group = "row of weights" if quantization.blocksize == WHOLE else f"{quantization.blocksize} weights"
    return f"a float16 scale and a 4-bit zero for each {group}"


def _group_constants(quantization: QuantizationSpec) -> str:
    return f"{group_words(quantization)}, an index a row"


def linear(c: Context, x: Tensor, out_features: int) -> Tensor:
    """The weight is written out in 16 bit for the product, and again for the input's gradient; x is not saved."""
    tape, written = c.tape, x.width * out_features * HALF_BYTES
    low = tape.cast(x, HALF_BYTES)
    out = tape.tensor(out_features, HALF_BYTES, x.needs_grad)
    tape.scratch(Part.DEQUANTIZATION, 0, written)
    if x.needs_grad:
        tape.record((out,), (low,), scratch=((Part.DEQUANTIZATION, 0, written),))
    return tape.cast(out, x.itemsize)


SCHEMES = {
    "gptq": Scheme(
        library="GPTQ",
        bits=4,
        constants_bytes=group_constants_bytes,
        constants=_group_constants,
        forward=linear,
        written_itemsize=lambda quantization: HALF_BYTES,
        options=("blocksize",),
        blocksizes=(WHOLE, 16, 32, 64, 128, 256, 512, 1024),
        blocksize=128,
        checkpoint=True,
        reaches_subclasses=True,
        reaches_experts=True,
        blocks_only=True,
        adapters=("lora", "adalora"),
        moved_bytes=MOVED_BYTES,
        launches=False,
    )
}
