"""Replay two steps of a recipe through the simulated allocator: loading, forward, backward, optimizer.

The blocks are those of the tape. The second step differs from the first: the optimizer's states, which come at the end
of the first one, lie where activations were.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from peftbench.allocator.blocks import MIN_BLOCK_BYTES, SMALL_BYTES, aligned
from peftbench.estimate.forward.kernels import kernels_of
from peftbench.estimate.forward.moments import step_moments
from peftbench.estimate.forward.step import step_of
from peftbench.estimate.parts.card import CardTraits
from peftbench.estimate.parts.optimizer import states_of, steps_by_lists
from peftbench.estimate.parts.tensors import TensorGroup, total_bytes
from peftbench.estimate.peft_forward.virtual_tokens import stream_length, stream_tokens
from peftbench.estimate.replay.load import load, tensors_in_order
from peftbench.estimate.replay.pools import Kept, Pools
from peftbench.estimate.replay.units import Left, Unit, unit_of
from peftbench.estimate.tape.played import INPUT, NOTHING
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.recipe import TrainingSpec

if TYPE_CHECKING:
    from peftbench.estimate.replay.replicas import Buckets
    from peftbench.estimate.replay.shards import Sharding

STRIDE = 1 << 16
"""Identifiers of a stretch's blocks: more than any has."""
STEPS = 2
BATCH_TENSORS = 3
"""input_ids, attention_mask and labels, as int64."""


class Batches(NamedTuple):
    """What the steps get, where it is known."""

    lengths: tuple[int, ...] = ()
    """Tokens of a sequence in each step; empty: the recipe's own, twice."""
    empty_cache_steps: int = 0
    """torch_empty_cache_steps: the cache is emptied after every so many steps; 0: never."""


ALIKE = Batches()


class Totals(NamedTuple):
    """Bytes that are alive beside the step's own tensors."""

    weights: int
    """With adapters."""
    states: int
    temporaries: int
    """What the optimizer's step makes and frees."""


ELSEWHERE = Totals(0, 0, 0)
"""Shared among several GPUs, and not replayed; gradients go when they are made."""


class Replayed(NamedTuple):
    """What the allocator made of it, in bytes."""

    reserved_bytes: int
    allocated_bytes: int
    rounding_bytes: int
    """What blocks have beyond their tensors when the most is allocated: remainders up to 1 MiB are not split off."""
    flushed_bytes: int
    """Reserved at most since the allocator last emptied its cache to go on; the same where it never did."""


@lru_cache(maxsize=4096)
def replay_step(
    model: ModelSpec, training: TrainingSpec, card: CardTraits, trained: tuple[TensorGroup, ...], totals: Totals,
    batches: Batches = ALIKE, sharding: "Sharding | None" = None, capacity_bytes: int | None = None,
) -> Replayed:  # fmt: skip
    """The peaks of a recipe that trains these tensors, on one GPU or on one of several that share it by FSDP2.

    Raises OutOfMemory where the allocator gets `capacity_bytes` and that is too little; None: as much as it takes.
    """
    computed = sharding.computed if sharding else training
    run = _Run(model, training, card, trained, totals, sharding, Pools(capacity_bytes))
    for number, length in enumerate(batches.lengths or (training.sequence_length,) * STEPS):
        run.step(replace(computed, sequence_length=length), first=number == 0)
        if batches.empty_cache_steps and (number + 1) % batches.empty_cache_steps == 0:
            run.pools.allocator.empty_cache()
    pools = run.pools
    beside = run.shards.reserved_bytes if run.shards else 0
    sizes = pools.allocated_bytes, pools.rounding_bytes, pools.flushed_bytes + beside
    return Replayed(pools.reserved_bytes + beside, *sizes)


@lru_cache(maxsize=64)
def _units(model: ModelSpec, training: TrainingSpec, card: CardTraits) -> tuple[Unit, ...]:
    played = step_moments(step_of(model, training, kernels_of(model, training, card))).played
    tokens, length = stream_tokens(training), stream_length(training)
    made: dict[int, Unit] = {}
    for each in played:
        if id(each) not in made:
            made[id(each)] = unit_of(each, tokens, length)
    return tuple(made[id(each)] for each in played)


class _Run:
    """A training run: what its loop holds are attributes."""

    def __init__(
        self, model: ModelSpec, training: TrainingSpec, card: CardTraits, trained: tuple[TensorGroup, ...],
        totals: Totals, sharding: "Sharding | None", pools: Pools,
    ) -> None:  # fmt: skip
        self.model, self.training, self.card = model, training, card
        self.trained, self.totals = trained, totals
        self.pools = pools
        self.gradients, self.outputs = Kept(self.pools), Kept(self.pools)
        self.batch: list[int] = []
        self.batch_bytes = 0
        self.handles = 2
        self.base = 0
        self.shards = None
        self.buckets: Buckets | None = None
        if sharding:
            from peftbench.estimate.replay.shards import Shards

            self.shards = Shards(self.pools, sharding)
        self._load()
        self.pools.begin()

    def _load(self) -> None:
        adapter = self.trained if self.training.adapter else ()
        if self.shards:
            whole = self.training.quantization is not None and self.shards.sharding.loads_whole
            self.shards.load(load(self.pools, self.model, self.training, (), 0) if whole else None)
        elif self.totals.weights:
            load(self.pools, self.model, self.training, adapter, self.totals.weights)
        if self.training.parallelism.strategy == "ddp":
            from peftbench.estimate.replay.replicas import Buckets, send_out

            send_out(self.pools, self.model, self.training, self.trained)
            self.buckets = Buckets(self.pools, self.training, self.trained)

    def step(self, training: TrainingSpec, first: bool) -> None:
        """One optimizer step."""
        units = _units(self.model, training, self.card)
        frees = not training.zero_grad_keeps
        if training.loop != "trainer" and frees:
            self._free_gradients()
        most = 3 if self.shards else 2  # of units, the last micro-batch alone may reduce gradients that were added to
        count = min(training.gradient_accumulation_steps, most)
        for number in range(1, count + 1):
            self._micro_batch(units, training, last=number == count)
        self._update(first)
        if training.loop == "trainer" and frees:
            self._free_gradients()

    def _free_gradients(self) -> None:
        self.gradients.free()
        if self.shards:
            self.shards.free_gradients()

    def _micro_batch(self, units: Sequence[Unit], training: TrainingSpec, last: bool) -> None:
        self._next_batch(8 * training.tokens)
        if self.buckets and self.base:
            self.buckets.rebuild()
        before, self.outputs = self.outputs, Kept(self.pools)
        self._forward(units)
        before.free()
        self._backward(units, last)
        if training.loop != "plain":
            self.outputs.free()
        self.base += len(units) * STRIDE

    def _next_batch(self, size: int) -> None:
        batch = [self.pools.new(size) for _ in range(BATCH_TENSORS)]
        for ident in self.batch:
            self.pools.go(ident, self.batch_bytes)
        self.batch, self.batch_bytes = batch, size

    def _open_handle(self) -> None:
        """cuBLAS gets a workspace in each of two threads, with the first product of forward and of backward."""
        if self.handles:
            self.handles -= 1
            self.pools.new(self.card.cublas_bytes // 2)

    def _forward(self, units: Sequence[Unit]) -> None:
        pools, ends = self.pools, (0, 1, len(units) - 2, len(units) - 1)
        for index, unit in enumerate(units):
            base = self.base + index * STRIDE
            if self.shards:
                self.shards.enter(index)
            pools.run(unit.forward, unit.sizes, base, index in ends)
            if unit.output != NOTHING:
                pools.allocator.rename(base + unit.output, base + STRIDE + INPUT)
            if index == 0 and self.handles == 2:
                self._open_handle()
            if self.shards:
                self.shards.leave(index)
        if self.shards:
            self.shards.end_forward()
        for index, unit in enumerate(units):
            pools.run(unit.released, unit.sizes, self.base + index * STRIDE, True)

    def _backward(self, units: Sequence[Unit], last: bool) -> None:
        pools, shards, ends = self.pools, self.shards, (0, 1, len(units) - 2, len(units) - 1)
        makes = self.training.gradients_outlive_step and not (shards.gradients if shards else self.gradients)
        self._open_handle()
        for index in range(len(units) - 1, -1, -1):
            unit, base = units[index], self.base + index * STRIDE
            if shards:
                shards.enter_backward(index)
            gradients = shards.gradients_of(index) if shards else self.gradients
            pools.run(unit.first_backward if makes else unit.backward, unit.sizes, base, index in ends)
            if makes:
                gradients.add(unit.passing, unit.sizes, base)
            if unit.outgoing != NOTHING:
                pools.allocator.rename(base + unit.outgoing, base - STRIDE + units[index - 1].incoming)
            elif index:  # no gradient flows on; the stretch below lets go of one
                pools.come(base - STRIDE + units[index - 1].incoming, units[index - 1].sizes[units[index - 1].incoming])
            gradients.add(unit.gradients, unit.sizes, base)
            self.outputs.add(unit.held, unit.sizes, base)
            if shards:
                shards.leave_backward(index, last)
            elif not self.totals.weights:  # reduced to this GPU's part, which is not here
                self.gradients.free()
        if shards:
            shards.end_backward(last)

    def _update(self, first: bool) -> None:
        """The optimizer's step: states with the first, temporaries with every one."""
        optimizer, totals = self.training.optimizer, self.totals
        if first and totals.states:
            self._spread(totals.states, states_of(optimizer))
        if not totals.temporaries:
            return
        if steps_by_lists(optimizer):
            self._spread(totals.temporaries, 1).free()
        else:
            self.pools.go(self.pools.new(totals.temporaries), totals.temporaries)

    def _spread(self, total: int, copies: int) -> Kept:
        """Blocks of so many bytes in all, for each trained tensor `copies` in proportion to it."""
        made, share = Kept(self.pools), total / max(total_bytes(self.trained), 1) / copies
        large = []
        for group in self.trained:
            each = round(group.tensor_numel * group.dtype.bytes * share)
            if each > SMALL_BYTES:
                large.append(group)
            else:
                made.add(Left((), copies * group.count * aligned(each, MIN_BLOCK_BYTES)), (), 0)
                self.pools.count(copies * group.count * aligned(each, MIN_BLOCK_BYTES))
        for _, size in tensors_in_order(tuple(large)):
            for _ in range(copies):
                each = round(size * share)
                made.blocks.append((self.pools.new(each), each))
        return made

