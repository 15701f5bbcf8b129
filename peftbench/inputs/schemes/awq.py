"""AWQ: a checkpoint of 4-bit codes with a scale and a packed zero for each group of inputs, and no order of inputs.

The zeros are there whatever zero_point says.

Source: the buffers of WQLinear_GEMM in AutoAWQ 0.2.8 `awq/modules/linear/gemm.py`; GPTQModel 7.7
`nn_modules/qlinear/gemm_awq.py`, by which transformers 5.23 runs such checkpoints; PEFT 0.21 `tuners/lora/awq.py`,
which clones no result and casts its own before scaling it: no moment of a layer is wider for the one or the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftbench.inputs.schemes.gptq import WHOLE, group_words, groups_of
from peftbench.inputs.schemes.scheme import Scheme
from peftbench.inputs.schemes.written_out import HALF_BYTES, written_out

if TYPE_CHECKING:
    from peftbench.inputs.recipe import QuantizationSpec

PACKED = 8
"""4-bit zeros in an int32, along the outputs."""


def constants_bytes(out_features: int, in_features: int, quantization: QuantizationSpec) -> int:
    """A 16-bit scale for each output of each group of inputs, and their 4-bit zeros, eight in an int32."""
    groups = groups_of(in_features, quantization)
    return groups * (HALF_BYTES * out_features + 4 * -(-out_features // PACKED))


SCHEMES = {
    "awq": Scheme(
        library="AWQ",
        bits=4,
        constants_bytes=constants_bytes,
        constants=group_words,
        forward=written_out(),  # AwqGemmFn saves nothing of x; up to 1,024 tokens only backward writes the weight out
        written_itemsize=lambda quantization: HALF_BYTES,
        options=("blocksize",),
        blocksizes=(WHOLE, 16, 32, 64, 128),
        blocksize=128,
        checkpoint=True,
        conv1d=True,
        reaches_subclasses=True,
        reaches_experts=True,
        blocks_only=True,
        adapters=("lora",),
        lora_leaves_input=True,
        step_doubt="no steps with AWQ weights published",
        unshardable="GPTQModel keeps its codes in buffers, which every GPU has whole",
    )
}
