"""What launching and dequantizing cost, whatever runs: shared by the times of generation and of training steps."""

from __future__ import annotations

from typing import NamedTuple


class HostCosts(NamedTuple):
    """Seconds that Python and PyTorch take to launch something, which no faster card shortens.

    The defaults are geometric means over the medians of independent sources, derived from the published rows by
    `check.published_latency.host_costs`; a test holds them together. All rows are eager PyTorch of 2023 and 2024.
    """

    layer_s: float = 0.99e-3
    """A decoder layer in 16 bit: litgpt 1.01 ms, ms-swift 1.03 ms, optimum-benchmark 0.92 ms."""
    quantized_linear_s: float = 0.093e-3
    """What a 4-bit linear layer of bitsandbytes adds: litgpt 0.16 ms, optimum-benchmark 0.054 ms."""
    separate_absmax_s: float = 0.045e-3
    """What double quantization adds where the absmax is dequantized by a kernel of its own: litgpt.

    bitsandbytes does so before 0.49; since then gemm_4bit takes the nested constants itself (matmul_4bit).
    """
    adapter_tensor_s: float = 0.065e-3
    """A dynamic adapter's matrix and its share of casts, scaling and addition: ms-swift, LoRA on every linear layer."""


HOST_COSTS = HostCosts()

DEQUANTIZED_BYTES = 2.9 * 2.5
"""Bytes moved for each weight that is written out in 16 bit before it is multiplied.

Reading half a byte and writing two is 2.5; bitsandbytes takes 3.6 times as long in litgpt's training on A100 and A10G,
and at most 2.3 times in optimum-benchmark's prefill of Llama-2-13B, where the copy is read besides: the geometric mean
is 2.9.
"""
