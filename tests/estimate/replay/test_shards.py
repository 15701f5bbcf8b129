"""FSDP2's units on three streams; tests/estimate/sharding/test_reserved.py compares whole runs with dry runs."""

from peftbench.base.units import MIB
from peftbench.estimate.replay.pools import Pools
from peftbench.estimate.replay.shards import ShardedUnit, Sharding, Shards
from peftbench.inputs.recipe import TrainingSpec

LAYER = ShardedUnit((40 * MIB,), (20 * MIB,), (), (40 * MIB,), ((0, 20 * MIB),), 40 * MIB, 20 * MIB, 40 * MIB)
HEAD = ShardedUnit((60 * MIB,), (30 * MIB,), (), (60 * MIB,), (), 60 * MIB, 30 * MIB, 30 * MIB)
UNTIED = Sharding((HEAD, LAYER, LAYER, HEAD), False, False, False, False, TrainingSpec())
TIED = UNTIED._replace(units=(None, LAYER, LAYER, HEAD))


def shards(sharding: Sharding) -> Shards:
    return Shards(Pools(), sharding)


def whole_mib(run: Shards) -> float:
    return run.pools.allocator.allocated_bytes / MIB


def forward(run: Shards) -> list[float]:
    """MiB of whole weights in each stretch."""
    found = []
    for index in range(len(run.sharding.units)):
        run.enter(index)
        found.append(whole_mib(run))
        run.leave(index)
    run.end_forward()
    return found


def backward(run: Shards, last: bool = True) -> list[float]:
    """MiB of whole weights and buckets in each stretch, from the head down."""
    found = []
    for index in reversed(range(len(run.sharding.units))):
        run.enter_backward(index)
        found.append(whole_mib(run))
        run.gradients_of(index)
        run.leave_backward(index, last)
    run.end_backward(last)
    return found


def test_a_unit_is_whole_while_it_runs_and_the_head_until_its_backward():
    run = shards(UNTIED)
    assert forward(run) == [60, 40, 40, 60]
    assert whole_mib(run) == 60
    assert backward(run) == [60, 60 + 40, 40 + 40, 40 + 60]
    assert whole_mib(run) == run.gathering.allocated_bytes == 0


def test_tied_embeddings_are_whole_throughout():
    run = shards(TIED)
    assert forward(run) == [60, 100, 100, 60]
    assert backward(run)[-1] == 60 + 40
    assert whole_mib(run) == 0


def test_what_is_not_resharded_is_not_gathered_again():
    run = shards(UNTIED._replace(keeps_whole=True))
    assert forward(run) == [60, 100, 140, 200]
    gathered = run.gathering.peak_reserved_bytes
    backward(run)
    assert run.gathering.peak_reserved_bytes == gathered and whole_mib(run) == 0


def test_a_buffer_lasts_until_the_next_unit_is_unpacked():
    run = shards(UNTIED)
    forward(run)
    assert run.gathering.peak_allocated_bytes / MIB == 60 + 40 + 20  # the embeddings', a layer's, its parts cast


def test_parts_of_gradients_stay_until_they_are_freed():
    run = shards(UNTIED)
    forward(run)
    backward(run)
    assert run.reducing.allocated_bytes / MIB == 40 + 40 + 30 + 30
    assert run.reducing.peak_allocated_bytes / MIB == 30 + 40 + 40 + 30 + 20 - 30 + 10
    run.free_gradients()
    assert run.reducing.allocated_bytes == 0


def test_gradients_that_wait_are_reduced_in_the_last_micro_batch():
    run = shards(UNTIED._replace(waits=True))
    forward(run)
    assert backward(run, last=False) == [60, 40, 40, 60]
    assert run.reducing.allocated_bytes == 0 and len(run.gradients) == 4


def test_on_the_host_no_part_stays():
    run = shards(UNTIED._replace(offloads=True))
    run.load(None)
    forward(run)
    backward(run)
    assert whole_mib(run) == run.reducing.allocated_bytes == 0


def test_a_layer_is_loaded_and_cut_at_a_time():
    run = shards(UNTIED)
    run.load(None)
    assert whole_mib(run) == 20 + 20 + 30 + 30
    assert run.pools.allocator.peak_allocated_bytes / MIB == 20 + 20 + 60 + 60 + 30 + 30


def test_a_model_that_is_loaded_whole_is_there_until_all_is_cut():
    run = shards(UNTIED._replace(loads_whole=True))
    run.load(None)
    assert run.pools.allocator.peak_allocated_bytes / MIB == 1.5 * (60 + 40 + 40 + 60)
