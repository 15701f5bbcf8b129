"""A group of processes of which only the first one is there: its collectives do nothing, for there are no data."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

from peftbench.inputs.recipe import ParallelismSpec


@contextlib.contextmanager
def group_of(parallelism: ParallelismSpec) -> Iterator[None]:
    """Let this process be the first of so many, whose part of a tensor is never smaller than that of another."""
    if parallelism.strategy == "none":
        yield
        return
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=parallelism.gpus)
    try:
        yield
    finally:
        dist.destroy_process_group()
