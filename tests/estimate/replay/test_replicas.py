"""DDP's buffers and buckets; tests/estimate/sharding/test_reserved.py compares whole runs with dry runs."""

from dataclasses import replace

from peftbench.base.units import MIB
from peftbench.catalog.models import find_model
from peftbench.estimate.parts.tensors import TensorGroup
from peftbench.estimate.replay.pools import Pools
from peftbench.estimate.replay.replicas import Buckets, send_out
from peftbench.inputs.recipe import AdapterSpec, DType, ParallelismSpec, TrainingSpec

FULL = TrainingSpec(parallelism=ParallelismSpec(gpus=2, strategy="ddp"))
TENSORS = (TensorGroup("up", (10, MIB), 4, DType.BFLOAT16),)


def mib(buckets: Buckets) -> list[float]:
    return [size / MIB for _, size in buckets.blocks.blocks]


def test_one_bucket_of_all_gradients_becomes_several_with_the_second_pass() -> None:
    buckets = Buckets(Pools(), FULL, TENSORS)
    assert mib(buckets) == [80]
    buckets.rebuild()
    assert mib(buckets) == [20, 40, 20]  # the first is full from 1 MiB on, others from 25


def test_they_are_several_from_the_beginning_where_parameters_may_be_unused() -> None:
    buckets = Buckets(Pools(), replace(FULL, adapter=AdapterSpec()), TENSORS)
    before = list(buckets.blocks.blocks)
    buckets.rebuild()
    assert mib(buckets) == [20, 40, 20] and buckets.blocks.blocks == before


def test_weights_are_sent_out_in_two_buffers_at_a_time() -> None:
    """A dry run of Llama-3.2-1B joins layers to buffers of 252 to 264 MiB; its embeddings go alone, without a copy."""
    pools = Pools()
    send_out(pools, find_model("llama-3.2-1b"), FULL, ())
    assert pools.allocator.allocated_bytes == 0
    assert 500 < pools.allocator.peak_allocated_bytes / MIB < 530
