"""What a card implies for every recipe: worked out once a plan, and equal for cards that need the same."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from peftbench.base.units import KIB
from peftbench.inputs.card.cuda_context import threads_per_multiprocessor
from peftbench.inputs.card.gpu import MODERN, GpuSpec

if TYPE_CHECKING:
    from peftbench.inputs.card.gpu import Seen

AMPERE = (8, 0)
"""The compute capability of a card that is not named."""
A100_MULTIPROCESSORS = 108
HOPPER = (9, 0)


class CardTraits(NamedTuple):
    """All of a card that the tensors of a step and torch's allocator depend on."""

    flash: bool
    """SDPA has flash attention."""
    bfloat16: bool
    """torch.cuda.is_bf16_supported(): autocast takes it beside float32 weights."""
    grouped_mm: bool
    """All experts can be multiplied at once."""
    cublas_bytes: int
    """Workspaces of two threads."""
    reducing_blocks: int
    """Blocks of 128 threads that run at once."""
    on_cpu: bool
    slack_factor: Seen | None
    """Reserved less allocated, measured on this card by what is expected."""


@lru_cache(maxsize=256)
def traits_of(gpu: GpuSpec | None) -> CardTraits:
    """An unnamed card, and one whose generation is unknown, is taken as Ampere."""
    generation = AMPERE if gpu is None or gpu.compute_capability is None else gpu.compute_capability
    on_cpu = gpu is not None and gpu.is_cpu
    seen = gpu.calibration.slack_factor if gpu and gpu.calibration else None
    kernels = MODERN if gpu is None else gpu.kernels
    cublas = 0 if on_cpu else cublas_workspace_bytes(generation)
    at_once = 0 if on_cpu else reducing_blocks(gpu.multiprocessors if gpu else None, generation)
    return CardTraits(kernels.flash, kernels.bfloat16, kernels.grouped_mm, cublas, at_once, on_cpu, seen)


def reducing_blocks(multiprocessors: int | None, compute_capability: tuple[int, int]) -> int:
    """Blocks of 128 threads that run at once; a card whose number of multiprocessors is unknown is taken as an A100."""
    return (multiprocessors or A100_MULTIPROCESSORS) * threads_per_multiprocessor(compute_capability) // 128


def cublas_workspace_bytes(compute_capability: tuple[int, int]) -> int:
    """One workspace for the handle of the main thread and one for autograd's.

    8.125 MiB each, 32 MiB from Hopper on. Source: getChosenWorkspaceSize in
    pytorch/aten/src/ATen/cuda/CublasHandlePool.cpp. A CPU has none.
    """
    return 2 * (4096 * 8 * KIB if compute_capability >= HOPPER else (4096 * 2 + 16 * 8) * KIB)
