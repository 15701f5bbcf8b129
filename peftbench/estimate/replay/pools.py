"""The two pools of torch's allocator during a step: the large one simulated block by block, the small one counted."""

from peftbench.allocator.blocks import MIN_BLOCK_BYTES, SMALL_BYTES, SMALL_SEGMENT_BYTES, aligned
from peftbench.allocator.simulation import CachingAllocator
from peftbench.estimate.replay.units import Left, Pass
from peftbench.estimate.tape.played import Events


class _Allocator(CachingAllocator):
    """One that knows the most it reserved since it last gave back what it kept."""

    since_emptied_bytes = 0

    def empty_cache(self) -> None:
        super().empty_cache()
        self.since_emptied_bytes = self.reserved_bytes

    def segment_changes(self, action: str, address: int, size: int, stream: int) -> None:
        self.since_emptied_bytes = max(self.since_emptied_bytes, self.reserved_bytes)


class Pools:
    """Blocks have the caller's identifiers; sizes are in bytes."""

    def __init__(self, capacity_bytes: int | None = None) -> None:
        """Take what the card leaves to both pools; None: as much as they take."""
        self.allocator = _Allocator(capacity_bytes=capacity_bytes)
        self.small_bytes = self.small_peak_bytes = 0
        self._next = -1

    @property
    def reserved_bytes(self) -> int:
        """The most that was reserved."""
        return self.allocator.peak_reserved_bytes + aligned(self.small_peak_bytes, SMALL_SEGMENT_BYTES)

    @property
    def flushed_bytes(self) -> int:
        """The most that was reserved after the last request that failed until the cache was emptied; the peak if none
        did."""
        allocator = self.allocator
        large = allocator.since_emptied_bytes if allocator.num_alloc_retries else allocator.peak_reserved_bytes
        return large + aligned(self.small_peak_bytes, SMALL_SEGMENT_BYTES)

    @property
    def allocated_bytes(self) -> int:
        """The most that was allocated, if both pools peak at once."""
        return self.allocator.peak_allocated_bytes + self.small_peak_bytes

    def begin(self) -> None:
        """Forget the peaks so far; what is reserved stays."""
        self.allocator.reset_peak()
        self.small_peak_bytes = self.small_bytes

    @property
    def rounding_bytes(self) -> int:
        """What large blocks had beyond their tensors when the most was allocated."""
        return self.allocator.rounding_at_peak_bytes

    def new(self, size: int) -> int:
        """A block with an identifier of its own, which is returned."""
        ident = self._next
        self._next = ident - 1
        self.come(ident, size)
        return ident

    def come(self, ident: int, size: int) -> None:
        """Allocate a block."""
        if size > SMALL_BYTES:
            self.allocator.malloc(ident, size)
        else:
            self.count(aligned(size, MIN_BLOCK_BYTES))

    def go(self, ident: int, size: int) -> None:
        """Free it."""
        if size > SMALL_BYTES:
            self.allocator.free(ident)
        else:
            self.count(-aligned(size, MIN_BLOCK_BYTES))

    def count(self, change: int, most: int = 0) -> None:
        """Let the small blocks grow by `change`, and by `most` on the way."""
        self.small_peak_bytes = max(self.small_peak_bytes, self.small_bytes + max(change, most))
        self.small_bytes += change

    def run(self, one: Pass, sizes: tuple[int, ...], base: int, whole: bool) -> None:
        """Go through a stretch whose blocks are numbered from `base` on; without what needs no new room, unless
        `whole`."""
        self.play(one.whole if whole or not self._has_room(one) else one.thin, sizes, base)
        self.count(one.small_bytes, one.small_peak_bytes)

    def play(self, events: Events, sizes: tuple[int, ...], base: int) -> None:
        """Large blocks that come and go."""
        malloc, free = self.allocator.malloc, self.allocator.free
        for event in events:
            if event >= 0:
                malloc(base + event, sizes[event])
            else:
                free(base + ~event)

    def _has_room(self, one: Pass) -> bool:
        allocator = self.allocator
        free_bytes = allocator.reserved_bytes - allocator.allocated_bytes
        return allocator.largest_free_bytes >= one.largest_bytes and free_bytes >= one.most_bytes


class Kept:
    """Blocks that go together."""

    def __init__(self, pools: Pools) -> None:
        self.pools = pools
        self.blocks: list[tuple[int, int]] = []
        """Large ones: identifier and size."""
        self.small_bytes = 0

    def __bool__(self) -> bool:
        return bool(self.blocks or self.small_bytes)

    def add(self, left: Left, sizes: tuple[int, ...], base: int) -> None:
        """What is alive after a stretch whose blocks are numbered from `base` on."""
        self.blocks += [(base + number, sizes[number]) for number in left.numbers]
        self.small_bytes += left.small_bytes

    def come(self, sizes: tuple[int, ...]) -> None:
        """Ask for blocks of these sizes in turn."""
        self.blocks += [(self.pools.new(size), size) for size in sizes]

    def free(self) -> None:
        """All of them."""
        for ident, size in self.blocks:
            self.pools.go(ident, size)
        self.pools.count(-self.small_bytes)
        self.blocks.clear()
        self.small_bytes = 0
