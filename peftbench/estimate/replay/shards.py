"""FSDP2 as an allocator sees it: units that are gathered, freed and reduced, on three streams.

A block serves the stream that it was allocated on, so each stream has pools of its own: that of the computation has the
whole weights and gradients, one the buffers that weights are gathered into, and one this GPU's part of the gradients.
FSDP2 calls no record_stream: what it frees is free at once. Events follow FSDPParamGroup in
torch/distributed/fsdp/_fully_shard/_fsdp_param_group.py (torch 2.13); a dry run records those of the real one.
"""

from typing import NamedTuple

from peftbench.allocator.simulation import CachingAllocator
from peftbench.estimate.replay.pools import Kept, Pools
from peftbench.inputs.recipe import TrainingSpec


class ShardedUnit(NamedTuple):
    """Parameters that are gathered together: bytes of each, in the order of the model."""

    loaded: tuple[int, ...]
    """Whole, as they come to the card before they are cut."""
    parts: tuple[int, ...]
    """This GPU's part of each, as it is stored."""
    constants: tuple[int, ...]
    """Bytes of quantized weights, on every GPU; 0 where they are on the card before."""
    whole: tuple[int, ...]
    """Gathered: padded to equal parts, in the dtype of the computation."""
    casts: tuple[tuple[int, int], ...]
    """Copies of parts that a gather makes first: what is there while it is made, 0 for nothing, and the copy."""
    bucket_bytes: int
    """Whole gradients, joined to be reduced; 0 where nothing is trained."""
    reduced_bytes: int
    """This GPU's part of them, in their dtype."""
    gradient_bytes: int
    """The same as it is stored; where that is another dtype, the other one goes."""


class Sharding(NamedTuple):
    """A model that FSDP2 has cut into units."""

    units: tuple[ShardedUnit | None, ...]
    """By stretch: embeddings, each layer, head. None for tied embeddings, which are in the head's."""
    keeps_whole: bool
    """SHARD_GRAD_OP: whole from forward to backward."""
    waits: bool
    """Gradients are reduced in the last micro-batch alone."""
    offloads: bool
    """Parts are in the host's memory."""
    loads_whole: bool
    """All of the model is on the card before it is cut."""
    computed: TrainingSpec
    """The recipe in the dtypes of a step: mixed precision casts weights as they are gathered."""


class Shards:
    """The units during a run. A stretch is named by its index; tied embeddings are whole with the head."""

    def __init__(self, pools: Pools, sharding: Sharding) -> None:
        self.pools, self.sharding = pools, sharding
        self.gathering, self.reducing = CachingAllocator(), CachingAllocator()
        self.gradients: dict[int, Kept] = {}
        """Whole ones, by unit."""
        self._head = len(sharding.units) - 1
        self._whole: dict[int, Kept] = {}
        self._buffers: dict[int, int] = {}
        self._bucket = Kept(pools)
        self._parts: dict[int, int] = {}
        self._next = 0

    @property
    def reserved_bytes(self) -> int:
        """The most that the streams beside the computation's reserved."""
        return self.gathering.peak_reserved_bytes + self.reducing.peak_reserved_bytes

    def unit_of(self, index: int) -> int:
        """The unit that a stretch belongs to."""
        return self._head if self.sharding.units[index] is None else index

    def gradients_of(self, index: int) -> Kept:
        """Where a stretch's gradients wait."""
        return self.gradients.setdefault(self.unit_of(index), Kept(self.pools))

    # ── loading ─────────────────────────────────────────────────────────────────────────────────────────────

    def load(self, whole: Kept | None) -> None:
        """Cut layers, embeddings, head in turn; `whole` is what of them is there before.

        A layer comes whole, and goes when its parts are cut; embeddings and head stay until the last.
        Source: fsdp2_prepare_model in accelerate/utils/fsdp_utils.py, _init_param in _fsdp_param.py.
        """
        ends = [unit for unit in (self.sharding.units[0], self.sharding.units[-1]) if unit is not None]
        layers = [unit for unit in self.sharding.units[1:-1] if unit is not None]
        late = whole or Kept(self.pools)
        for unit in (*layers, *ends) if self.sharding.loads_whole else ():
            late.come(unit.loaded)
        for number, unit in enumerate((*layers, *ends)):
            moved = late if number >= len(layers) else Kept(self.pools)
            if not self.sharding.loads_whole:
                moved.come(unit.loaded)
            self._cut(unit)
            if moved is not late:
                moved.free()
        late.free()

    def _cut(self, unit: ShardedUnit) -> None:
        for size in unit.constants:
            self.pools.new(size)
        for size in unit.parts:
            ident = self.pools.new(size)
            if self.sharding.offloads:
                self.pools.go(ident, size)

    # ── gathering ───────────────────────────────────────────────────────────────────────────────────────────

    def enter(self, index: int) -> None:
        """Before the forward pass of a stretch: its unit's weights, and then the buffer of the unit before goes."""
        before, unit = list(self._buffers), self.unit_of(index)
        if unit in self._whole:
            return
        self._fetch(unit)
        self._unpack(unit)
        for each in before:
            self.gathering.free(self._buffers.pop(each))

    def leave(self, index: int) -> None:
        """After it. The head's stay for its backward pass, as do all where nothing is resharded in between."""
        if index != self._head and not self.sharding.keeps_whole and self.sharding.units[index] is not None:
            self._whole.pop(index).free()

    def end_forward(self) -> None:
        """The last buffer goes."""
        for index in list(self._buffers):
            self.gathering.free(self._buffers.pop(index))

    def enter_backward(self, index: int) -> None:
        """Before the backward pass of a stretch: its unit's weights, and the buffer of the one to come."""
        if self.sharding.units[index] is None:
            return
        if index not in self._whole:
            self._fetch(index)
            self._unpack(index)
            self.gathering.free(self._buffers.pop(index))
        if index and self.sharding.units[index - 1] is not None:
            self._fetch(index - 1)

    def _fetch(self, index: int) -> None:
        """Gather a unit into a buffer."""
        unit = self.sharding.units[index]
        assert unit is not None
        if index in self._buffers or index in self._whole:
            return
        copies = []
        for moved, copy in unit.casts:
            source = self._new(self.gathering, moved)
            copies.append(self._new(self.gathering, copy))
            self.gathering.free(source)
        self._buffers[index] = self._new(self.gathering, sum(unit.whole))
        for ident in reversed(copies):
            self.gathering.free(ident)

    def _unpack(self, index: int) -> None:
        unit = self.sharding.units[index]
        assert unit is not None
        self._whole[index] = whole = Kept(self.pools)
        whole.come(unit.whole)

    # ── reducing ────────────────────────────────────────────────────────────────────────────────────────────

    def leave_backward(self, index: int, last: bool) -> None:
        """After the backward pass of a stretch. What has no gradient of its input ends with the whole pass."""
        if index and self.unit_of(0) != index:
            self._finish(index, last or not self.sharding.waits)

    def end_backward(self, last: bool) -> None:
        """The embeddings' unit, and the last buffers."""
        self._finish(self.unit_of(0), last or not self.sharding.waits)
        self._bucket.free()
        self.end_forward()

    def _finish(self, index: int, reduces: bool) -> None:
        if index in self._whole:
            self._whole.pop(index).free()
        if reduces:
            self._bucket.free()
            self._reduce(index)

    def _reduce(self, index: int) -> None:
        unit, gradients = self.sharding.units[index], self.gradients.pop(index, None)
        if gradients is None or unit is None or not unit.bucket_bytes:
            return
        self._bucket.come((unit.bucket_bytes,))
        gradients.free()
        part = self._new(self.reducing, unit.reduced_bytes)
        if unit.gradient_bytes != unit.reduced_bytes:
            reduced, part = part, self._new(self.reducing, unit.gradient_bytes)
            self.reducing.free(reduced)
        if self.sharding.offloads or index in self._parts:
            self.reducing.free(part)
        else:
            self._parts[index] = part

    def free_gradients(self) -> None:
        """This GPU's part of them, between two steps."""
        for ident in self._parts.values():
            self.reducing.free(ident)
        self._parts.clear()

    def _new(self, allocator: CachingAllocator, size: int) -> int:
        self._next += 1
        allocator.malloc(self._next, size)
        return self._next

