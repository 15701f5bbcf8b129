"""Files of codes that transformers writes out in 16 bit: compressed-tensors (llm-compressor) and GGUF (llama.cpp).

Source: CompressedTensorsHfQuantizer of transformers 5.23 and ModelCompressor.compress_model of compressed-tensors 0.20,
whose hook decompresses the model at its first forward pass; GgufHfQuantizer, which keeps blocks for generation where
the kernels package has a kernel; GGML_QUANT_SIZES of gguf 0.19.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftbench.inputs.schemes.gptq import WHOLE, groups_of
from peftbench.inputs.schemes.scheme import Scheme
from peftbench.inputs.schemes.written_out import HALF_BYTES, written_out

if TYPE_CHECKING:
    from peftbench.inputs.recipe import QuantizationSpec

BLOCK = 256
BLOCK_BYTES = {2: 84, 3: 110, 4: 144, 5: 176, 6: 210, 8: 272}
"""A block of 256 weights of Q2_K … Q6_K, and eight of Q8_0, with their scales."""


def group_constants_bytes(out_features: int, in_features: int, quantization: QuantizationSpec) -> int:
    """A 16-bit scale for each group of inputs of each output, and the int64 shape of the matrix."""
    return HALF_BYTES * out_features * groups_of(in_features, quantization) + 16


COMPRESSED = Scheme(
    library="compressed-tensors",
    bits=4,
    bits_choices=(4, 8),
    constants_bytes=group_constants_bytes,
    constants=lambda quantization: "a 16-bit scale for each group of weights",
    forward=written_out(),
    written_itemsize=lambda quantization: HALF_BYTES,
    options=("blocksize", "bits"),
    blocksizes=(WHOLE, 16, 32, 64, 128),
    blocksize=128,
    checkpoint=True,
    dequantizes=True,
    untrainable="transformers decompresses compressed-tensors at the first forward pass, and trains on 16-bit weights",
    reaches_subclasses=True,
    step_doubt="no steps with compressed weights published",
    unshardable="compressed-tensors decompresses it at the first forward pass",
)
SCHEMES = {
    "compressed-tensors": COMPRESSED,
    "gguf": COMPRESSED._replace(
        library="GGUF",
        bits_choices=(2, 3, 4, 5, 6, 8),
        packed_bytes=lambda numel, quantization: -(-numel // BLOCK) * BLOCK_BYTES[quantization.bits or 4],
        constants_bytes=lambda out_features, in_features, quantization: 0,
        constants=lambda quantization: "scales within the blocks",
        options=("bits",),
        blocksizes=(),
        blocksize=None,
        untrainable="transformers does not train on GGUF blocks (GgufHfQuantizer.is_trainable)",
        unshardable="transformers does not train on GGUF blocks",
    ),
}
