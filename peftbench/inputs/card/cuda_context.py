"""How much of a card the CUDA context takes: its size and the band around it.

Context stands for all that torch's allocator does not see of a process: CUDA's own memory, the handles of cuBLAS and
the kernels that were loaded. results/published/context.csv has samples of cards under training;
tests/inputs/card/test_cuda_context.py takes both constants from it again, and holds them out by card and by source.
"""

from __future__ import annotations

from peftbench.base.errors import SpecError
from peftbench.base.units import MIB

SMALL_MIB, LARGE_MIB = 3.7, 4.8
"""A multiprocessor: the middle one of the cards of each kind. Large ones hold 2048 threads, small ones 1024 or 1536.

Every multiprocessor has stacks and local memory for all of its threads, so the context grows with their number.
"""

LARGE = frozenset(((6, 0), (7, 0), (8, 0), (9, 0), (10, 0), (10, 3)))
"""Compute capabilities of data centre chips."""

SPREAD = 0.25
"""The samples of one card are up to so much off. Kernels load when they are first called: one that only loads a model
is at the lower end, one that trains a mixture at the upper."""

_SMALLEST, _MIDDLE, _LARGEST = 34, 84, 188
"""Multiprocessors of the published cards: the range for a card whose number is unknown, and the middle one."""


def threads_per_multiprocessor(capability: tuple[int, int] | None) -> int:
    """How many can be resident. Source: CUDA C++ Programming Guide, technical specifications."""
    return 2048 if capability in LARGE else 1024 if capability == (7, 5) else 1536


def context_bytes(multiprocessors: int | None, capability: tuple[int, int] | None) -> int:
    """Bytes of a CUDA context under PyTorch, expected; None for either stands for a card where it is unknown."""
    return _bytes(_MIDDLE if multiprocessors is None else multiprocessors, capability)


def context_band(multiprocessors: int | None, capability: tuple[int, int] | None) -> tuple[int, int]:
    """Bytes between which the context is expected."""
    fewest, most = (_SMALLEST, _LARGEST) if multiprocessors is None else (multiprocessors, multiprocessors)
    return round(_bytes(fewest, capability) * (1 - SPREAD)), round(_bytes(most, capability) * (1 + SPREAD))


def _bytes(multiprocessors: int, capability: tuple[int, int] | None) -> int:
    if multiprocessors < 0:
        raise SpecError(f"a card cannot have {multiprocessors} multiprocessors.")
    return round(multiprocessors * (LARGE_MIB if capability in LARGE else SMALL_MIB) * MIB)
