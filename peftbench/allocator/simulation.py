"""Simulates PyTorch's CUDA memory allocator, which keeps what is freed: how much a list of tensors makes it reserve.

This is DeviceCachingAllocator of c10/cuda/CUDACachingAllocator.cpp (torch 2.13) for one device, to the byte: streams
with blocks of their own, rounding, two pools, best fit, splitting, merging, expandable segments, oversize blocks,
garbage collection by age, and what is tried before a request fails.

Not simulated: events that delay a free (record_stream, which FSDP2 does not call), and ages counted over all streams
together; private pools (CUDA graphs, MemPool); free-memory callbacks; memory shared between processes; settings
changed after the first request; and the driver, which may round what cudaMalloc is asked for and may fail earlier than
the sum of the segments says. Addresses are invented: they rise and are never used again, which changes no choice that
torch makes among free blocks.
"""

from bisect import bisect_left
from typing import NamedTuple

from peftbench.allocator.blocks import (
    MIN_BLOCK_BYTES,
    SMALL_BYTES,
    UNLIMITED_BYTES,
    Block,
    Pool,
    aligned,
)
from peftbench.allocator.settings import AllocatorSettings
from peftbench.base.units import MIB, human_bytes

_MIN_OWN_SEGMENT_BYTES = 10 * MIB
"""Requests from this size on get a segment of their own."""
_DEFAULT = AllocatorSettings()


class OutOfMemory(Exception):
    """torch.OutOfMemoryError: nothing more could be freed, and the request did not fit. Sizes in bytes."""

    def __init__(self, size_bytes: int, allocated_bytes: int, reserved_bytes: int, capacity_bytes: int) -> None:
        self.size_bytes = size_bytes
        """The segment that was tried for, as in torch's message, not the tensor."""
        self.allocated_bytes = allocated_bytes
        self.reserved_bytes = reserved_bytes
        self.capacity_bytes = capacity_bytes
        """What the allocator could have reserved."""
        super().__init__(
            f"out of memory: tried to allocate {human_bytes(size_bytes)}; {human_bytes(allocated_bytes)} allocated, "
            f"{human_bytes(reserved_bytes)} reserved of {human_bytes(capacity_bytes)}"
        )


class SegmentBlock(NamedTuple):
    """A block as a memory snapshot shows it."""

    address: int
    size_bytes: int
    requested_bytes: int
    ident: int | None
    """None for a free block."""


class Segment(NamedTuple):
    """Memory from one cudaMalloc, or a range of mapped pages of an expandable segment, with the blocks that tile it."""

    address: int
    size_bytes: int
    stream: int
    is_large: bool
    is_expandable: bool
    blocks: tuple[SegmentBlock, ...]


class HostAllocator:
    """malloc and free as a CPU has them: every byte that is asked for, nothing kept back."""

    num_alloc_retries = 0

    def __init__(self) -> None:
        self.allocated_bytes = self.peak_allocated_bytes = 0
        self._live: dict[int, int] = {}

    @property
    def peak_reserved_bytes(self) -> int:
        """There is no cache: what is allocated."""
        return self.peak_allocated_bytes

    def malloc(self, ident: int, size_bytes: int, stream: int = 0) -> int:
        """The counterpart of CachingAllocator.malloc; a CPU has no streams."""
        self._live[ident] = size_bytes
        self.allocated_bytes += size_bytes
        self.peak_allocated_bytes = max(self.peak_allocated_bytes, self.allocated_bytes)
        return size_bytes

    def free(self, ident: int) -> None:
        """The counterpart of CachingAllocator.free."""
        self.allocated_bytes -= self._live.pop(ident)

    def empty_cache(self) -> None:
        """There is none."""

    def reset_peak(self) -> None:
        """The counterpart of CachingAllocator.reset_peak."""
        self.peak_allocated_bytes = self.allocated_bytes


class CachingAllocator:
    """torch.cuda's memory, event by event; identifiers are the caller's. All sizes are in bytes."""

    def __init__(
        self,
        settings: AllocatorSettings = _DEFAULT,
        capacity_bytes: int | None = None,
        device_bytes: int | None = None,
    ) -> None:
        """Take what cudaMalloc can hand out in all (None: any amount), and the card's total_memory (None: the same).

        The latter counts for per_process_memory_fraction and for the address space of an expandable segment.
        """
        self.allocated_bytes = self.reserved_bytes = self.requested_bytes = 0
        self.peak_allocated_bytes = self.peak_reserved_bytes = 0
        self.rounding_at_peak_bytes = 0
        """What blocks had beyond what was asked for, at the peak of what was allocated."""
        self.num_alloc_retries = self.num_ooms = 0
        self._settings = settings
        self._divisions = settings.roundup_power2_divisions
        self._capacity = UNLIMITED_BYTES if capacity_bytes is None else capacity_bytes
        self._device = self._capacity if device_bytes is None else device_bytes
        limited = settings.per_process_memory_fraction < 1
        self._allowed = int(settings.per_process_memory_fraction * self._device) if limited else UNLIMITED_BYTES
        self._collects = limited and settings.garbage_collection_threshold > 0
        self._pools: dict[int, tuple[Pool, Pool]] = {}
        """The small and the large pool of each stream: a block serves the stream that it was got for."""
        self._live: dict[int, Block] = {}
        self._next_address = 1 << 32

    # ── what a program does ─────────────────────────────────────────────────────────────────────────────────

    def malloc(self, ident: int, size_bytes: int, stream: int = 0) -> int:
        """Hand out a block for this stream and return its size: what memory_allocated() rises by, 0 for no bytes.

        Raises OutOfMemory when even an emptied cache does not help, and ValueError for a live identifier.
        """
        if not size_bytes:
            return 0
        if ident in self._live:
            raise ValueError(f"{ident} is live already")
        size = self._rounded(size_bytes) if self._divisions else (size_bytes + 511) & -512
        pools = self._pools.get(stream) or self._new_pools(stream)
        pool = pools[size > SMALL_BYTES]
        block = pool.take(size) or self._grow(pool, size)
        pool.split(block, size)
        block.live = True
        block.requested_bytes = size_bytes
        self._live[ident] = block
        self.requested_bytes += size_bytes
        self.allocated_bytes += block.size
        if self.allocated_bytes > self.peak_allocated_bytes:
            self.peak_allocated_bytes = self.allocated_bytes
            self.rounding_at_peak_bytes = self.allocated_bytes - self.requested_bytes
        return block.size

    def free(self, ident: int) -> None:
        """Take a block back into the cache, merged with free neighbours; nothing for an identifier that is not live."""
        block = self._live.pop(ident, None)
        if block is None:
            return
        self.allocated_bytes -= block.size
        self.requested_bytes -= block.requested_bytes
        block.live = False
        block.requested_bytes = 0
        block.pool.insert_merged(block)

    def rename(self, old: int, new: int) -> None:
        """Let a live block go by another identifier; nothing for one that is not live."""
        if old in self._live:
            self._live[new] = self._live.pop(old)

    @property
    def largest_free_bytes(self) -> int:
        """The largest free block of the first stream's large pool; 0 for none."""
        _, large = self._pools.get(0) or self._new_pools(0)
        return large.free[-1][0] if large.free else 0

    def empty_cache(self) -> None:
        """torch.cuda.empty_cache(): give back whole free segments, or whole free pages of expandable ones."""
        for pool in (pool for pools in self._pools.values() for pool in reversed(pools)):
            for _, _, block, _ in list(pool.free):
                if self._settings.expandable_segments:
                    self._unmap(pool, block)
                elif not block.is_split:
                    self._release(block)

    def reset_peak(self) -> None:
        """torch.cuda.reset_peak_memory_stats()."""
        self.peak_allocated_bytes = self.allocated_bytes
        self.peak_reserved_bytes = self.reserved_bytes

    def address_of(self, ident: int) -> int:
        """Where a live block begins; KeyError for an identifier that is not live."""
        return self._live[ident].address

    def segments(self) -> list[Segment]:
        """Every segment with its blocks, by address: what torch.cuda.memory_snapshot() lists."""
        owners = {block: ident for ident, block in self._live.items()}
        free = [block for pools in self._pools.values() for pool in pools for _, _, block, _ in pool.free]
        heads = [b for b in (*owners, *free) if b.previous is None or not b.previous.mapped]
        return sorted(self._segment(head, owners) for head in heads)

    def _segment(self, head: Block, owners: dict[Block, int]) -> Segment:
        blocks = []
        block: Block | None = head
        while block is not None and block.mapped:
            blocks.append(SegmentBlock(block.address, block.size, block.requested_bytes, owners.get(block)))
            block = block.next
        size = sum(b.size_bytes for b in blocks)
        pool, expandable = head.pool, self._settings.expandable_segments
        return Segment(head.address, size, pool.stream, pool.is_large, expandable, tuple(blocks))

    def _new_pools(self, stream: int) -> tuple[Pool, Pool]:
        counts = self._collects
        small, large = (Pool(self._settings, stream, is_large=big, counts_searches=counts) for big in (False, True))
        self._pools[stream] = small, large
        return small, large

    # ── how memory is got and given back ────────────────────────────────────────────────────────────────────

    def segment_changes(self, action: str, address: int, size: int, stream: int) -> None:
        """Called for every change of `reserved_bytes`, with torch's name for it; a subclass may write it down."""

    def _grow(self, pool: Pool, size: int) -> Block:
        """Get a block from new memory, freeing what is cached in torch's order until there is room: malloc()."""
        segment = pool.page_bytes if size < _MIN_OWN_SEGMENT_BYTES else aligned(size, 2 * MIB)
        if self._collects:
            self._collect_garbage()
        block = self._allocate(pool, size, segment)
        if block is None and self._release_oversize(pool, size):
            block = self._allocate(pool, size, segment)
        if block is None:
            self.empty_cache()
            self.num_alloc_retries += 1
            block = self._allocate(pool, size, segment)
        if block is None:
            self.num_ooms += 1
            limit = min(self._capacity, self._allowed)
            raise OutOfMemory(segment, self.allocated_bytes, self.reserved_bytes, limit)
        return block

    def _rounded(self, size: int) -> int:
        """round_size() with roundup_power2_divisions: up to the next step between two powers of two."""
        interval = min(max(size.bit_length() - 21, 0), len(self._divisions) - 1)
        divisions = self._divisions[interval]
        if divisions > 1 and size > MIN_BLOCK_BYTES * divisions:
            return aligned(size, (1 << size.bit_length() - 1) // divisions)
        return aligned(size, MIN_BLOCK_BYTES)

    def _allocate(self, pool: Pool, size: int, segment: int) -> Block | None:
        """Get a block that is in no list, or None: alloc_block()."""
        if self.reserved_bytes + segment > self._allowed:
            return None
        if self._settings.expandable_segments:
            return self._extend(pool, size)
        if not self._reserve(segment):
            return None
        block = self._new_segment(pool, segment)
        self.segment_changes("segment_alloc", block.address, segment, pool.stream)
        return block

    def _new_segment(self, pool: Pool, size: int) -> Block:
        """A block at addresses that are multiples of a page, as unmap() needs them."""
        address = aligned(self._next_address, pool.page_bytes)
        self._next_address = address + size
        return Block(address, size, pool, None, None)

    def _reserve(self, size: int) -> bool:
        """Count new memory if the card has it."""
        if self.reserved_bytes + size > self._capacity:
            return False
        self.reserved_bytes += size
        self.peak_reserved_bytes = max(self.peak_reserved_bytes, self.reserved_bytes)
        return True

    def _extend(self, pool: Pool, size: int) -> Block | None:
        """Map pages after or between free blocks until one is large enough: try_allocate_expandable_block()."""
        block = pool.room_to_grow(size) or self._expandable_segment(pool)
        while not block.mapped or block.size < size:
            hole = block.next if block.mapped else block
            assert hole is not None
            missing = size - block.size if block.mapped else size
            pages = aligned(min(missing, hole.size), pool.page_bytes)
            if not self._reserve(pages):
                return None
            self.segment_changes("segment_map", hole.address, pages, pool.stream)
            pool.map(hole, pages)
            block = hole
        pool.remove(block)
        return block

    def _expandable_segment(self, pool: Pool) -> Block:
        """Reserve addresses for 9/8 of the card, without memory behind them."""
        block = self._new_segment(pool, aligned(self._device + self._device // 8, pool.page_bytes))
        block.mapped = False
        pool.insert(block)
        return block

    def _release(self, block: Block) -> None:
        """cudaFree a segment that is one free block."""
        block.pool.remove(block)
        self.reserved_bytes -= block.size
        self.segment_changes("segment_free", block.address, block.size, block.pool.stream)

    def _unmap(self, pool: Pool, block: Block) -> None:
        """Take the memory from the whole pages of a free block."""
        first = aligned(block.address, pool.page_bytes)
        size = pool.unmap(block)
        if size:
            self.reserved_bytes -= size
            self.segment_changes("segment_unmap", first, size, pool.stream)

    def _release_oversize(self, pool: Pool, size: int) -> bool:
        """Free the smallest block that is large enough but oversize, or several oversize ones from the largest down.

        release_available_cached_blocks(); False where it does nothing or frees too little.
        """
        oversize = self._settings.max_split_size_bytes
        if oversize is None or self._settings.expandable_segments:
            return False
        at = bisect_left(pool.free, (size,))
        if at < len(pool.free):
            self._release(pool.free[at][2])
            return True
        released = 0
        while released < size and pool.free and pool.free[-1][0] >= oversize:
            released += pool.free[-1][0]
            self._release(pool.free[-1][2])
        return released >= size

    def _collect_garbage(self) -> None:
        """Above the threshold free the whole segments that were not used for longest: garbage_collect_cached_blocks().

        The age of a block is the number of searches since it was freed; each round frees those of at least average age.
        """
        excess = self.reserved_bytes - int(self._settings.garbage_collection_threshold * self._allowed)
        larges = [large for _, large in self._pools.values()]
        ages = [(p.searches - since, block) for p in larges for _, _, block, since in p.free if not block.is_split]
        while excess > 0 and ages:
            average = sum(age for age, _ in ages) / len(ages)
            for age, block in ages:
                if age >= average:
                    excess -= block.size
                    self._release(block)
            ages = [(age, block) for age, block in ages if age < average]
