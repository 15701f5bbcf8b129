"""MXFP4: experts as 4-bit floats with a shared exponent for each 32, as gpt-oss is published.

Source: Mxfp4GptOssExperts in transformers 5.23 `integrations/mxfp4.py`, and Mxfp4HfQuantizer, which keeps the codes for
generation with Triton and the kernels package, from compute capability 7.5 on, and writes them out otherwise.
"""

from __future__ import annotations

from peftbench.inputs.schemes.scheme import Scheme
from peftbench.inputs.schemes.written_out import written_out

SHARED = 32
"""Weights that have one 8-bit exponent."""

SCHEMES = {
    "mxfp4": Scheme(
        library="MXFP4",
        bits=4,
        constants_bytes=lambda out_features, in_features, quantization: out_features * -(-in_features // SHARED),
        constants=lambda quantization: f"an 8-bit exponent for each {SHARED} weights",
        forward=written_out(),  # of no linear layer
        written_itemsize=lambda quantization: 0,
        checkpoint=True,
        dequantizes=True,
        capability=(7, 5),
        untrainable="transformers does not train on MXFP4 as stored (Mxfp4HfQuantizer.is_trainable)",
        reaches_experts=True,
        experts_only=True,
        step_doubt="no steps with MXFP4 weights published",
        unshardable="transformers does not train on MXFP4",
    )
}
