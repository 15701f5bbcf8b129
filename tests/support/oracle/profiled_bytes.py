"""Peaks of a real forward and backward pass on the CPU, from the allocations that torch.profiler records.

A TorchDispatchMode (live_bytes.py) will not do here: under it autograd adds gradients out of place, and what a kernel
allocates inside is hidden. The profiler changes nothing and sees every allocation of torch's CPU allocator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch._C._profiler import _EventType
from torch.profiler import ProfilerActivity, profile, record_function

MIXING = ("aten::add", "aten::add_", "aten::mul", "aten::sub", "aten::div", "aten::where")
"""Operations whose CPU kernels first cast an operand of another type; those of a card read both types."""


class Allocation(NamedTuple):
    """An allocation, or with negative bytes a release."""

    time: int
    address: int
    nbytes: int
    counts: bool


def peaks(forward: Callable[[], torch.Tensor]) -> tuple[int, int]:
    """The most bytes alive at once during `forward` and during the backward pass of its loss, above those before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        loss = forward()
        with record_function("the backward pass"):
            loss.backward()
    tree = profiler.profiler.kineto_results.experimental_event_tree()
    began = next(event.start_time_ns for event in tree if event.name == "the backward pass")
    return _peaks(sorted(allocation for root in tree for allocation in _allocations(root, ())), began)


def _peaks(allocations: list[Allocation], began: int) -> tuple[int, int]:
    alive: dict[int, int] = {}
    total = forward = backward = 0
    for allocation in allocations:
        if allocation.nbytes < 0:
            total -= alive.pop(allocation.address, 0)
        elif allocation.counts:
            alive[allocation.address] = allocation.nbytes
            total += allocation.nbytes
        if allocation.time < began:
            forward = max(forward, total)
        else:
            backward = max(backward, total)
    return forward, backward


def _allocations(event: Any, path: tuple[str, ...]) -> Iterator[Allocation]:
    if event.tag == _EventType.Allocation:
        fields = event.extra_fields
        cast = any(a in MIXING and b == "aten::to" for a, b in pairwise(path))
        yield Allocation(event.start_time_ns, fields.ptr, fields.alloc_size, not cast)
    for child in event.children:
        yield from _allocations(child, (*path, event.name))
