"""The blocks of PyTorch's caching allocator: pieces of memory that are found, split, merged, mapped and unmapped.

Names follow c10/cuda/CUDACachingAllocator.cpp (torch 2.13). A segment is what one cudaMalloc returned or, if it is
expandable, a range of addresses of which whole pages are mapped. Its blocks are a linked list that tiles it.
"""

from __future__ import annotations

from bisect import bisect_left, insort

from peftbench.allocator.settings import AllocatorSettings
from peftbench.base.units import MIB

MIN_BLOCK_BYTES = 512
SMALL_BYTES = MIB
"""The largest request of the small pool."""
SMALL_SEGMENT_BYTES = 2 * MIB
UNLIMITED_BYTES = 1 << 96
"""More than anything asks for."""


def aligned(size: int, step: int) -> int:
    """Round up to a multiple."""
    return -(-size // step) * step


class Block:
    """A piece of a segment: live (handed out), free (in its pool's list), or addresses without memory (unmapped)."""

    __slots__ = ("address", "live", "mapped", "next", "pool", "previous", "requested_bytes", "size")

    def __init__(self, address: int, size: int, pool: Pool, previous: Block | None, after: Block | None) -> None:
        self.address = address
        self.size = size
        self.pool = pool
        self.previous = previous
        self.next = after
        self.live = False
        self.mapped = True
        self.requested_bytes = 0

    @property
    def is_split(self) -> bool:
        """Whether the segment has other blocks: it cannot be given back as a whole."""
        return self.previous is not None or self.next is not None

    @property
    def extent(self) -> int:
        """Bytes that the block can grow to where it is."""
        after = self.next
        return self.size if after is None or after.mapped else self.size + after.size

    def cut(self, size: int) -> Block:
        """Shorten this block to its first `size` bytes and return the rest as a block after it, in no list yet."""
        rest = Block(self.address + size, self.size - size, self.pool, self, self.next)
        rest.mapped = self.mapped
        if self.next is not None:
            self.next.previous = rest
        self.next = rest
        self.size = size
        return rest


class Pool:
    """The free blocks of one stream and kind: requests up to 1 MiB (small), or larger ones."""

    def __init__(self, settings: AllocatorSettings, stream: int, *, is_large: bool, counts_searches: bool) -> None:
        self.stream = stream
        self.is_large = is_large
        self.page_bytes = settings.large_segment_bytes if is_large else SMALL_SEGMENT_BYTES
        """What requests below 10 MiB get from cudaMalloc, and what an expandable segment grows by."""
        self.free: list[tuple[int, int, Block, int]] = []
        """(size, address, block, `searches` when it came), sorted: the best fit comes first.

        torch orders blocks of one size by the age of their segment, then by address; here a newer segment has the
        higher address, so the address says both: BlockComparatorSizeCounterAddress().
        """
        self.unmapped: list[tuple[int, Block]] = []
        """(address, block), sorted."""
        self.searches = 0
        self._counts_searches = counts_searches
        self._expandable = settings.expandable_segments
        self._oversize = UNLIMITED_BYTES if settings.max_split_size_bytes is None else settings.max_split_size_bytes
        self._rounding = settings.max_non_split_rounding_bytes
        self._takes_first = settings.max_split_size_bytes is None and not settings.expandable_segments
        wasteful = is_large and not settings.expandable_segments
        self._least_rest = SMALL_BYTES + 1 if wasteful else MIN_BLOCK_BYTES
        self._splits_below = self._oversize if wasteful else UNLIMITED_BYTES

    def take(self, size: int) -> Block | None:
        """Take the best fit out of the free list: get_free_block()."""
        free = self.free
        if self._counts_searches:
            self.searches += 1
        at = bisect_left(free, (size,))
        if not self._takes_first:
            at = self._acceptable(at, size)
        return free.pop(at)[2] if at < len(free) else None

    def _acceptable(self, at: int, size: int) -> int:
        """Where the block is that may be used, from the first that is large enough on; the list's length for none.

        A block that can grow counts as large as it can become, so it is kept for those who need that. An oversize
        block serves only oversize requests, and those only if little is left.
        """
        free = self.free
        if self._expandable:
            while at + 1 < len(free) and free[at + 1][2].extent < free[at][2].extent:
                at += 1
        limit = self._oversize if size < self._oversize else size + self._rounding
        return at if at < len(free) and free[at][0] < limit else len(free)

    def split(self, block: Block, size: int) -> None:
        """Return the rest of a block to the free list if it is worth it: should_split().

        The large pool leaves up to 1 MiB on a block, and all of it on an oversize one; expandable segments do not.
        """
        if block.size - size >= self._least_rest and size < self._splits_below:
            rest = block.cut(size)
            insort(self.free, (rest.size, rest.address, rest, self.searches))

    def insert(self, block: Block) -> None:
        """Put a free or an unmapped block into its list."""
        if block.mapped:
            insort(self.free, (block.size, block.address, block, self.searches))
        else:
            insort(self.unmapped, (block.address, block))

    def remove(self, block: Block) -> None:
        """Take a free or an unmapped block out of its list."""
        if block.mapped:
            del self.free[bisect_left(self.free, (block.size, block.address))]
        else:
            del self.unmapped[bisect_left(self.unmapped, (block.address,))]

    def insert_merged(self, block: Block) -> None:
        """Let a block absorb the neighbours of its kind, then put it into its list: try_merge_blocks()."""
        before, after = block.previous, block.next
        if before is not None and not before.live and before.mapped == block.mapped:
            self.remove(before)
            block.address = before.address
            block.size += before.size
            block.previous = before.previous
            if before.previous is not None:
                before.previous.next = block
        if after is not None and not after.live and after.mapped == block.mapped:
            self.remove(after)
            block.size += after.size
            block.next = after.next
            if after.next is not None:
                after.next.previous = block
        self.insert(block)

    def map(self, block: Block, size: int) -> None:
        """Put memory behind the first pages of an unmapped block, which becomes free: map_block()."""
        self.remove(block)
        if size < block.size:
            self.insert(block.cut(size))
        block.mapped = True
        self.insert_merged(block)

    def unmap(self, block: Block) -> int:
        """Take the memory from the whole pages inside a free block and return its bytes: unmap_block()."""
        first = aligned(block.address, self.page_bytes)
        last = (block.address + block.size) // self.page_bytes * self.page_bytes
        if first >= last:
            return 0
        self.remove(block)
        middle = block
        if first > block.address:
            middle = block.cut(first - block.address)
            self.insert(block)
        if last < middle.address + middle.size:
            self.insert(middle.cut(last - middle.address))
        middle.mapped = False
        self.insert_merged(middle)
        if not middle.is_split:  # the whole segment: its addresses are given back
            self.remove(middle)
        return last - first

    def room_to_grow(self, size: int) -> Block | None:
        """The lowest free or unmapped block with addresses for `size` bytes from it on: find_expandable_block()."""
        for _, hole in self.unmapped:
            before = hole.previous
            start = before if before is not None and not before.live else hole
            block: Block | None = start
            found = 0
            while found < size and block is not None and not block.live:
                found += block.size
                block = block.next
            if found >= size:
                return start
        return None
