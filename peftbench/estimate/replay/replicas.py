"""DistributedDataParallel as an allocator sees it: weights that are sent out, and buckets for gradients.

Source: torch/csrc/distributed/c10d/reducer.cpp and comm.cpp, torch/nn/parallel/distributed.py (torch 2.13).
"""

from collections.abc import Iterable, Iterator

from peftbench.base.units import MIB
from peftbench.estimate.parts.base_weights import quantized_weights
from peftbench.estimate.parts.tensors import TensorGroup
from peftbench.estimate.replay.load import in_order, tensors_in_order
from peftbench.estimate.replay.pools import Kept, Pools
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.recipe import TrainingSpec

BROADCAST_BYTES, FIRST_BUCKET_BYTES, BUCKET_BYTES = 250 * MIB, MIB, 25 * MIB
"""What joins tensors that are sent out, the first gradients, and the others: a bucket is full from this size on."""
IN_FLIGHT = 2
"""Buffers of weights that are sent out at a time: max_in_flight of broadcast_coalesced."""


def send_out(pools: Pools, model: ModelSpec, training: TrainingSpec, trained: tuple[TensorGroup, ...]) -> None:
    """The first GPU's weights, joined to buffers by type; a tensor that fills one alone is not copied."""
    quantized = set(quantized_weights(model, training.quantization))
    codes, plain = [], []
    for weight in in_order(model):
        if training.quantization and weight in quantized:
            codes.append(training.quantization.code_bytes(weight.numel))
        else:
            plain.append(weight.numel * training.dtype.bytes)
    adapters = [size for _, size in tensors_in_order(trained)] if training.adapter else []
    under_way: list[Kept] = []
    for sizes in (plain, codes, adapters):
        for bucket in _buckets(sizes, (BROADCAST_BYTES,)):
            if len(under_way) == IN_FLIGHT:
                under_way.pop(0).free()
            under_way.append(Kept(pools))
            if len(bucket) > 1:
                under_way[-1].come((sum(bucket),))
    for each in under_way:
        each.free()


class Buckets:
    """What gradients are copied into: one of all at first, and others from the second forward pass on.

    Where a parameter may be unused, those others are there from the beginning.
    """

    def __init__(self, pools: Pools, training: TrainingSpec, trained: tuple[TensorGroup, ...]) -> None:
        self.blocks = Kept(pools)
        self.sizes = [size for _, size in tensors_in_order(trained)]
        self.rebuilds = not training.looks_for_unused
        if self.rebuilds:
            self.blocks.come((sum(self.sizes),))
        else:
            self._fill()

    def rebuild(self) -> None:
        """Before a forward pass that is not the first."""
        if self.rebuilds:
            self.rebuilds = False
            self.blocks.free()
            self._fill()

    def _fill(self) -> None:
        buckets = _buckets(reversed(self.sizes), (FIRST_BUCKET_BYTES, BUCKET_BYTES))
        self.blocks.come(tuple(sum(bucket) for bucket in buckets))


def _buckets(sizes: Iterable[int], limits_bytes: tuple[int, ...]) -> Iterator[list[int]]:
    """Tensors in turn until a bucket is full; the last limit is that of all further ones."""
    bucket: list[int] = []
    limits = iter(limits_bytes)
    limit = next(limits)
    for size in sizes:
        bucket.append(size)
        if sum(bucket) >= limit:
            yield bucket
            bucket, limit = [], next(limits, limit)
    if bucket:
        yield bucket
