"""The card that the libraries are shown: its generation, and whether batches have padding.

A dry run lives in a process of its own, so there is one card at a time, set before each run.
"""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any

import torch

from peftbench.estimate.parts.card import A100_MULTIPROCESSORS, AMPERE, reducing_blocks


class Card:
    """What the answers depend on."""

    def __init__(self) -> None:
        self.compute_capability: tuple[int, int] = AMPERE
        self.multiprocessors = A100_MULTIPROCESSORS
        self.padded = False
        self.adds_mask = False
        """The unfused attention is adding its mask to the scores, which a card does in place."""

    def set(self, compute_capability: tuple[int, int], multiprocessors: int, padded: bool) -> None:
        """Take another card; what was asked of the last one is forgotten."""
        self.compute_capability = compute_capability
        self.multiprocessors = multiprocessors
        self.padded = padded
        if _gemm_heuristic.cache_info().currsize:
            ops = _gemm_heuristic()
            for cached in (ops._gpu_dispatch_props, ops._gemm_4bit_use_custom_cuda):
                cached.cache_clear()

    @property
    def has_bfloat16(self) -> bool:
        """torch.cuda.is_bf16_supported(): natively from Ampere on, emulated below."""
        return self.compute_capability >= AMPERE

    @property
    def reducing_blocks(self) -> int:
        """Blocks of 128 threads that run at once, which reductions aim at."""
        return reducing_blocks(self.multiprocessors, self.compute_capability)

    @property
    def properties(self) -> SimpleNamespace:
        """What libraries read of torch.cuda.get_device_properties()."""
        major, minor = self.compute_capability
        return SimpleNamespace(
            name="dry run", major=major, minor=minor, total_memory=1 << 40,
            multi_processor_count=self.multiprocessors, gcnArchName="",
        )  # fmt: skip

    def fuses_gemm_4bit(self, dtype: torch.dtype, tokens: int, out: int, inner: int, blocksize: int) -> bool:
        """Whether bitsandbytes multiplies by a 4-bit matrix without writing it out first: asked of itself."""
        ops = _gemm_heuristic()
        if tokens > ops._gemm_4bit_custom_max_m or inner % blocksize:
            return False
        return bool(ops._gemm_4bit_use_custom_cuda(0, dtype, tokens, out, inner))


@functools.lru_cache(maxsize=1)
def _gemm_heuristic() -> Any:
    """bitsandbytes' CUDA backend: it imports on a machine without CUDA once torch has one more name."""
    if not hasattr(torch._C, "_cuda_getCurrentRawStream"):
        torch._C._cuda_getCurrentRawStream = lambda device: 0
    from bitsandbytes.backends.cuda import ops

    return ops


CARD = Card()
"""The card of the run under way."""
