"""GPTQ: a checkpoint of codes with a scale and a zero for each group of inputs, in 16 bit whatever the recipe.

The buffers are there whatever desc_act (an index for each input) and sym (zeros that are all equal) say. Source:
qweight, scales, qzeros and g_idx of AutoGPTQ's QuantLinear, its forward without fused kernels, and PEFT 0.21
`tuners/lora/gptq.py`, which runs as on a plain layer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftbench.inputs.schemes.scheme import Scheme
from peftbench.inputs.schemes.written_out import HALF_BYTES, written_out

if TYPE_CHECKING:
    from peftbench.inputs.recipe import QuantizationSpec

WHOLE = -1
"""group_size of a checkpoint whose rows are one group each."""
MOVED_BYTES = 10.7 * 2.5
"""Bytes moved for each weight of AutoGPTQ, which is unpacked by kernels of its own."""


def group_constants_bytes(out_features: int, in_features: int, quantization: QuantizationSpec) -> int:
    """A 16-bit scale and a packed zero for each group of inputs of each output, an int32 group index for each input."""
    groups = groups_of(in_features, quantization) * out_features
    return HALF_BYTES * groups + -(-groups * (quantization.bits or 4) // 8) + 4 * in_features


def groups_of(in_features: int, quantization: QuantizationSpec) -> int:
    """Groups of the inputs of one output, each with a scale and a zero; a group_size of -1 is all inputs."""
    assert quantization.blocksize is not None  # the scheme has one
    return 1 if quantization.blocksize == WHOLE else -(-in_features // quantization.blocksize)


def group_words(quantization: QuantizationSpec) -> str:
    """What a group's constants are."""
    group = "row of weights" if quantization.blocksize == WHOLE else f"{quantization.blocksize} weights"
    return f"a float16 scale and a {quantization.bits}-bit zero for each {group}"


def _group_constants(quantization: QuantizationSpec) -> str:
    return f"{group_words(quantization)}, an index a row"


SCHEMES = {
    "gptq": Scheme(
        library="GPTQ",
        bits=4,
        constants_bytes=group_constants_bytes,
        constants=_group_constants,
        forward=written_out(),
        written_itemsize=lambda quantization: HALF_BYTES,
        options=("blocksize", "bits"),
        bits_choices=(2, 3, 4, 8),
        blocksizes=(WHOLE, 16, 32, 64, 128, 256, 512, 1024),
        blocksize=128,
        checkpoint=True,
        conv1d=True,
        reaches_subclasses=True,
        reaches_experts=True,
        blocks_only=True,
        adapters=("lora", "adalora"),
        moved_bytes=MOVED_BYTES,
        launches=False,
    )
}
