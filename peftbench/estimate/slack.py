"""What the caching allocator reserves beyond what tensors need, and the CUDA context below both."""

from __future__ import annotations

from peftbench.memory import Basis, Component, Part, Phase
from peftbench.spec.cuda_context import context_band, context_bytes
from peftbench.spec.gpu import GpuSpec

EXPECTED_SHARE = 0.06
HIGH_SHARE = 0.35


def slack(dynamic_bytes: int, phases: frozenset[Phase]) -> Component:
    """Reserved minus allocated: freed blocks that later tensors did not fit into."""
    expected = round(dynamic_bytes * EXPECTED_SHARE)
    because = "cached blocks that no later tensor fitted, a share of what a step allocates and frees"
    return Component(
        Part.SLACK, expected, Basis.MODELLED, phases, because, 0, round(dynamic_bytes * HIGH_SHARE)
    )


def context(gpu: GpuSpec | None, phases: frozenset[Phase]) -> Component:
    """The CUDA context of the process."""
    multiprocessors = gpu.multiprocessors if gpu else None
    low, high = context_band(multiprocessors)
    size = gpu.context_bytes if gpu and gpu.context_bytes else context_bytes(multiprocessors)
    because = f"{multiprocessors or 'unknown number of'} multiprocessors, and PyTorch's kernels"
    return Component(Part.CONTEXT, size, Basis.ASSUMED, phases, because, min(low, size), max(high, size))
