"""How much of a card the CUDA context takes before the first tensor: its size and the band around it."""

from __future__ import annotations

from peftbench.base.errors import SpecError
from peftbench.base.units import MIB

PER_MULTIPROCESSOR_BYTES = 3 * MIB
"""Every multiprocessor gets stacks and local memory of its own, so a bare context grows with their number.

Published: 555 MiB on 188 multiprocessors (2.95 each), 107 MiB on 34 (3.15 each): ggml-org/llama.cpp#23604.
"""

PYTORCH_BYTES = 300 * 10**6
"""What PyTorch with CUDA 11.7 or newer takes, its lazily loaded kernels included. Source: pytorch#107667."""

KERNELS_BYTES = 633 * MIB
"""The most that the kernels loaded by a training run can add: cuBLAS, flash attention, bitsandbytes, Triton.

On an A100-80GB, nvidia-smi's figure less torch's allocated peak is context + kernels + allocator slack. Over
83 published runs of one card (fms-acceleration) it is never below 957 MiB, so context and kernels are at most
that. A bare context of 108 × 3 MiB leaves 957 - 324 = 633 MiB. It is a bound, not a fit: the next runs are at
1208 and 1393 MiB, and each holds some slack.
"""

_SMALLEST, _LARGEST = 34, 188
"""Multiprocessors of the published cards: the range for a card whose number is unknown."""


def context_bytes(multiprocessors: int | None) -> int:
    """Bytes of a CUDA context under PyTorch, expected: max(300 MB, 3 MiB × multiprocessors).

    A bare context is proportional to the multiprocessors; small cards are ruled by what PyTorch itself loads.
    None stands for a card whose number is unknown.
    """
    return max(PYTORCH_BYTES, _bare_bytes(multiprocessors or 0))


def context_band(multiprocessors: int | None) -> tuple[int, int]:
    """Bytes between which the context is expected: bare, and with every kernel of a training run loaded.

    The expected size is nearer the lower end: kernels load lazily, and the upper end still holds some slack.
    """
    low = _bare_bytes(_SMALLEST if multiprocessors is None else multiprocessors)
    high = _bare_bytes(_LARGEST if multiprocessors is None else multiprocessors) + KERNELS_BYTES
    return low, high


def _bare_bytes(multiprocessors: int) -> int:
    if multiprocessors < 0:
        raise SpecError(f"a card cannot have {multiprocessors} multiprocessors.")
    return PER_MULTIPROCESSOR_BYTES * multiprocessors
