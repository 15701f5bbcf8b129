"""DistributedDataParallel on a fake model: torch's own Python, around a stand-in for its reducer, which is C++.

The reducer compares shapes over all processes and reads data to do so. What it allocates follows from its rule alone.
Source: torch/csrc/distributed/c10d/reducer.cpp.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel, distributed

from peftbench.dryrun.trace.recorder import Recorder
from peftbench.inputs.recipe import TrainingSpec
from peftbench.memory import Part

IN_FLIGHT = 2
"""Buffers of weights that are sent out at a time: max_in_flight of broadcast_coalesced, c10d/comm.cpp."""


def replicate(model: Any, recipe: TrainingSpec, recorder: Recorder) -> Any:
    """The model in DDP, with the arguments that the Trainer has for it."""
    unused = recipe.looks_for_unused or (recipe.loop == "trainer" and hasattr(model, "peft_config"))
    with recorder, _stand_ins(recorder):
        return DistributedDataParallel(model, device_ids=[0], find_unused_parameters=unused)


@contextlib.contextmanager
def _stand_ins(recorder: Recorder) -> Iterator[None]:
    """Put them in the place of what would read data."""

    def reducer(*args: Any) -> Reducer:
        return Reducer(recorder, *args)

    def send_out(module: nn.Module, broadcast_bucket_size: int, **_: Any) -> None:
        _send_out([t.detach() for t in (*module.parameters(), *module.buffers())], broadcast_bucket_size, recorder)

    with (
        mock.patch.object(distributed, "_verify_param_shape_across_processes", lambda *_: None),
        mock.patch.object(distributed, "_sync_module_states", send_out),
        mock.patch.object(dist, "Reducer", reducer),
        mock.patch.object(dist, "Logger", lambda *_: mock.MagicMock()),
    ):
        yield


def _send_out(tensors: list[torch.Tensor], most_bytes: int, recorder: Recorder) -> None:
    """Join tensors of one type to buffers of so many bytes, of which two are under way; one tensor is not copied.

    Source: broadcast_coalesced in torch/csrc/distributed/c10d/comm.cpp.
    """
    under_way: deque[torch.Tensor | None] = deque(maxlen=IN_FLIGHT)
    with recorder.holding(Part.BUCKETS):
        for indices in _assigned(tensors, [most_bytes]):
            several = [tensors[i].reshape(-1) for i in indices]
            if len(under_way) == IN_FLIGHT:
                under_way.popleft()
            under_way.append(torch.cat(several) if len(several) > 1 else None)


def _assigned(tensors: list[torch.Tensor], limits_bytes: list[int], order: Sequence[int] = ()) -> list[list[int]]:
    """Which tensors share a bucket, by torch's own rule: the limits are of the first buckets, the last one of all more.

    `order` has the numbers to call the tensors by, where they are not those of the list.
    """
    assign: Any = getattr(dist, "_compute_bucket_assignment_by_size")  # noqa: B009 (not exported)
    found: list[list[int]] = assign(tensors, limits_bytes, [False] * len(tensors), list(order))[0]
    return found


class Reducer:
    """Buckets that gradients are copied into, made when DDP is and, where no parameter can be unused, made again.

    They are made again before the second step, in the order in which the gradients came in the first one.
    """

    def __init__(self, recorder: Recorder, parameters: Sequence[nn.Parameter], buckets: list[list[int]], *args: Any):
        self.recorder = recorder
        self.parameters = list(parameters)
        self.find_unused, self.cap_bytes, self.first_cap_bytes = args[4], args[3], args[7]
        self.order: list[int] = []
        self.rebuilt = self.find_unused
        self._fill(buckets)
        if not self.rebuilt:
            for index, parameter in enumerate(self.parameters):
                parameter.register_post_accumulate_grad_hook(lambda _, index=index: self.order.append(index))

    def _fill(self, buckets: list[list[int]]) -> None:
        """Source: initialize_buckets, which lets go of the buckets there are first."""
        self.buckets: list[torch.Tensor] = []
        with self.recorder.holding(Part.BUCKETS):
            for indices in buckets:
                first = self.parameters[indices[0]]
                numel = sum(self.parameters[index].numel() for index in indices)
                self.buckets.append(torch.empty(numel, dtype=first.dtype, device=first.device))

    def _rebuild_buckets(self) -> bool:
        if self.rebuilt or not self.order:
            return False
        self.rebuilt = True
        order = list(dict.fromkeys(self.order))
        limits = [self.first_cap_bytes, self.cap_bytes]
        self._fill(_assigned([self.parameters[i] for i in order], limits, order))
        return True

    def nothing(self, *_: object, **__: object) -> None:
        """What else DDP asks of its reducer takes no memory."""

    set_logger = prepare_for_forward = prepare_for_backward = nothing
