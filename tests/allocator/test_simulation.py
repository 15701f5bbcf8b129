"""The simulated allocator against PyTorch's source, against recordings of the real one, and against what always holds.

`CUDACachingAllocator.cpp` names torch's c10/cuda/CUDACachingAllocator.cpp, `notes/cuda` its documentation
https://docs.pytorch.org/docs/stable/notes/cuda.html#optimizing-memory-usage-with-pytorch-cuda-alloc-conf.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from peftbench.allocator.settings import AllocatorSettings, parse_settings
from peftbench.allocator.simulation import CachingAllocator, OutOfMemory
from peftbench.base.errors import SpecError
from peftbench.base.units import KIB, MIB

EXPANDABLE = "expandable_segments:True"


def allocator(text: str = "", capacity: int | None = None) -> CachingAllocator:
    return CachingAllocator(parse_settings(text), capacity)


def filled(sizes: list[int], text: str = "", capacity: int | None = None) -> CachingAllocator:
    """One live block for each size, with the identifiers 0, 1, ..."""
    made = allocator(text, capacity)
    for ident, size in enumerate(sizes):
        made.malloc(ident, size)
    return made


def free_all(made: CachingAllocator, *idents: int) -> None:
    for ident in idents:
        made.free(ident)


def block_sizes(made: CachingAllocator) -> list[list[int]]:
    """MiB of each block, free ones negative, segment by segment."""
    return [
        [block.size_bytes // MIB * (1 if block.ident is not None else -1) for block in segment.blocks]
        for segment in made.segments()
    ]


# ── sizes: round_size(), get_allocation_size(), should_split() ──────────────────────────────────────────────


@pytest.mark.parametrize(
    ("asked", "allocated", "reserved"),
    [
        (1, 512, 2 * MIB),  # kMinBlockSize, kSmallBuffer
        (513, 1024, 2 * MIB),
        (MIB, MIB, 2 * MIB),  # kSmallSize: the last of the small pool
        (MIB + 1, MIB + 512, 20 * MIB),  # kLargeBuffer
        (10 * MIB - 512, 10 * MIB - 512, 20 * MIB),
        (10 * MIB - 511, 10 * MIB, 10 * MIB),  # kMinLargeAlloc: its own segment
        (10 * MIB + 1, 10 * MIB + 512, 12 * MIB),  # kRoundLarge; more than 1 MiB is left and split off
        (11 * MIB, 12 * MIB, 12 * MIB),  # exactly 1 MiB is left: it stays on the block and counts as allocated
        (11 * MIB - 512, 11 * MIB - 512, 12 * MIB),
    ],
)
def test_sizes_are_rounded_as_torch_rounds_them(asked, allocated, reserved):
    made = allocator()
    assert made.malloc(0, asked) == allocated
    assert (made.allocated_bytes, made.reserved_bytes, made.requested_bytes) == (allocated, reserved, asked)


def test_nothing_is_handed_out_for_no_bytes():
    made = allocator()
    assert made.malloc(7, 0) == 0
    made.free(7)
    assert made.segments() == []


def test_an_identifier_is_live_once():
    made = filled([512])
    with pytest.raises(ValueError, match="0 is live already"):
        made.malloc(0, 512)


def test_the_small_pool_splits_down_to_512_bytes():
    made = filled([MIB, MIB - 512])  # should_split(): remaining >= kMinBlockSize
    assert made.malloc(2, 1) == 512 and made.reserved_bytes == 2 * MIB


@pytest.mark.parametrize("text", ["large_segment_size_mb:64", "large_segment_size_mb:64," + EXPANDABLE])
def test_large_segment_size_is_what_small_requests_of_the_large_pool_share(text):
    made = filled([12 * MIB, 2 * MIB], text)  # recorded: 12 MiB still get a segment of their own
    assert block_sizes(made) == ([[12, 2, -50]] if EXPANDABLE in text else [[12], [2, -62]])


@pytest.mark.parametrize(
    ("text", "asked", "allocated"),
    [
        # notes/cuda, roundup_power2_divisions: with 4 divisions 1200 lies between 1024 and 2048 and becomes 1280
        ("roundup_power2_divisions:4", 1200 * KIB, 1280 * KIB),
        ("roundup_power2_divisions:4", 1280 * KIB, 1280 * KIB),
        ("roundup_power2_divisions:4", 1024 * KIB, 1024 * KIB),
        ("roundup_power2_divisions:4", 2048, 2048),  # round_size(): only above 512 B times the divisions
        ("roundup_power2_divisions:4", 2049, 2560),
        ("roundup_power2_divisions:4", 1200, 1536),
        ("roundup_power2_divisions:1", 1200 * KIB, 1200 * KIB),
        # notes/cuda: "[256:1,512:2,1024:4,>:8]" sets 1 up to 256 MiB, 2 up to 512, 4 up to 1024, 8 above
        ("roundup_power2_divisions:[256:1,512:2,1024:4,>:8]", 200 * MIB + 1, 200 * MIB + 512),
        ("roundup_power2_divisions:[256:1,512:2,1024:4,>:8]", 513 * MIB, 768 * MIB),
        ("roundup_power2_divisions:[256:1,512:2,1024:4,>:8]", 1025 * MIB, 1280 * MIB),
        ("roundup_power2_divisions:[256:1,512:2,1024:4,>:8]", 2049 * MIB, 2304 * MIB),
        ("roundup_power2_divisions:[256:1,512:2,1024:4,>:8]", 65 * 1024 * MIB, 72 * 1024 * MIB),
    ],
)
def test_divisions_round_up_between_powers_of_two(text, asked, allocated):
    assert allocator(text).malloc(0, asked) == allocated


# ── which block is taken: get_free_block(), free_block(), try_merge_blocks() ─────────────────────────────────


def test_the_smallest_sufficient_block_is_taken():
    made = filled([40 * MIB, 20 * MIB, 30 * MIB])
    free_all(made, 0, 1, 2)
    made.malloc(3, 19 * MIB)
    made.malloc(4, 21 * MIB)
    assert block_sizes(made) == [[-40], [20], [21, -9]]


def test_among_equals_the_oldest_segment_is_taken():
    made = filled([12 * MIB, 12 * MIB, 12 * MIB])  # BlockComparatorSizeCounterAddress
    made.free(0)
    made.empty_cache()
    made.malloc(3, 12 * MIB)  # a card may place it where the first one was, but it is the newest
    oldest = made.address_of(1)
    free_all(made, 3, 2, 1)
    made.malloc(4, 12 * MIB)
    assert made.address_of(4) == oldest


def test_free_neighbours_become_one_block():
    made = filled([4 * MIB] * 5)
    free_all(made, 1, 3)
    made.malloc(5, 8 * MIB)  # two holes of 4 MiB do not make 8
    assert made.reserved_bytes == 40 * MIB
    made.free(2)
    made.malloc(6, 12 * MIB)  # with what lay between they make 12
    assert made.reserved_bytes == 40 * MIB


def test_emptying_the_cache_keeps_segments_that_are_in_use():
    made = filled([4 * MIB, 50 * MIB, 1])  # release_blocks(): only where prev and next are null
    free_all(made, 1, 2)
    made.empty_cache()
    assert block_sizes(made) == [[4, -16]] and made.reserved_bytes == 20 * MIB


def test_growing_batches_strand_segments_unless_they_are_expandable():
    """notes/cuda, expandable_segments: a batch of N then N + 1 leaves slivers that are never used again."""
    peaks = []
    for text in ("", EXPANDABLE):
        made = allocator(text)
        for size in range(20, 30):
            for ident in range(8):
                made.malloc(ident, size * MIB)
            free_all(made, *range(8))
        peaks.append(made.peak_reserved_bytes)
    assert peaks[1] <= (8 * 29 + 20) * MIB < 1.5 * peaks[1] < peaks[0]


def test_peaks_are_kept_until_they_are_reset():
    made = filled([30 * MIB, 12 * MIB])
    made.free(0)
    made.empty_cache()
    assert (made.peak_allocated_bytes, made.peak_reserved_bytes) == (42 * MIB, 42 * MIB)
    made.reset_peak()
    assert (made.peak_allocated_bytes, made.peak_reserved_bytes) == (12 * MIB, 12 * MIB)


# ── expandable segments: map_block(), unmap_block(), try_allocate_expandable_block() ─────────────────────────


def test_expandable_segments_grow_by_pages_of_their_pool():
    made = filled([25 * MIB, 15 * MIB, 100], EXPANDABLE)
    assert block_sizes(made) == [[25, 15], [0, -1]] and made.reserved_bytes == 42 * MIB
    made.malloc(3, 2 * MIB)
    assert made.reserved_bytes == 62 * MIB


def test_expandable_segments_split_down_to_512_bytes():
    made = filled([20 * MIB - 512], EXPANDABLE)  # should_split() treats them like the small pool
    assert made.allocated_bytes == 20 * MIB - 512


def test_pages_in_the_middle_are_unmapped_and_mapped_again():
    made = filled([30 * MIB, 50 * MIB, 20 * MIB], EXPANDABLE)
    address = made.address_of(0)
    made.free(1)
    made.empty_cache()  # of the hole from 30 to 80 MiB the pages from 40 to 80 are whole
    assert block_sizes(made) == [[30, -10], [20]] and made.reserved_bytes == 60 * MIB
    made.malloc(3, 25 * MIB)  # the free 10 MiB and one page of the hole
    assert made.address_of(3) == address + 30 * MIB
    assert block_sizes(made) == [[30, 25, -5], [20]] and made.reserved_bytes == 80 * MIB


def test_free_blocks_on_both_sides_of_a_hole_are_joined():
    made = filled([30 * MIB, 60 * MIB, 10 * MIB], EXPANDABLE)
    made.free(1)
    made.empty_cache()
    assert block_sizes(made) == [[30, -10], [-10, 10]] and made.reserved_bytes == 60 * MIB
    made.malloc(3, 60 * MIB)
    assert block_sizes(made) == [[30, 60, 10]] and made.reserved_bytes == 100 * MIB


def test_a_block_that_can_grow_is_kept_for_those_who_need_that():
    made = filled([8 * MIB, 7 * MIB], EXPANDABLE)
    made.free(0)
    made.malloc(2, 4 * MIB)  # the last 5 MiB fit better, but count with the addresses behind them
    assert block_sizes(made) == [[4, -4, 7, -5]]


def test_an_expandable_segment_that_is_empty_is_given_back():
    made = filled([50 * MIB, 1], EXPANDABLE)
    free_all(made, 0, 1)
    made.empty_cache()
    assert made.reserved_bytes == 0 and made.segments() == []


# ── what is tried before a request fails: malloc(), alloc_block(), release_cached_blocks() ───────────────────


def test_the_cache_is_emptied_before_a_request_fails():
    made = filled([60 * MIB], capacity=100 * MIB)
    made.free(0)
    made.malloc(1, 80 * MIB)
    assert (made.reserved_bytes, made.num_alloc_retries, made.num_ooms) == (80 * MIB, 1, 0)


@pytest.mark.parametrize("text", ["", EXPANDABLE])
def test_a_failed_request_says_what_torch_says_and_changes_nothing_live(text):
    made = filled([60 * MIB], text, capacity=100 * MIB)
    with pytest.raises(OutOfMemory) as error:
        made.malloc(1, 50 * MIB + 1)  # torch's message: "Tried to allocate 52.00 MiB", the segment
    failed = error.value
    assert (failed.size_bytes, failed.allocated_bytes) == (52 * MIB, 60 * MIB)
    assert (failed.reserved_bytes, failed.capacity_bytes) == (60 * MIB, 100 * MIB)
    assert "tried to allocate 52.00 MiB; 60.00 MiB allocated" in str(failed)
    assert (made.allocated_bytes, made.num_alloc_retries, made.num_ooms) == (60 * MIB, 1, 1)
    assert made.malloc(1, 30 * MIB) == 30 * MIB


def test_the_smallest_sufficient_oversize_block_is_freed_first():
    """release_available_cached_blocks() comes before the retry that empties the cache, and is no retry."""
    made = filled([64 * MIB, 96 * MIB, 80 * MIB], "max_split_size_mb:20", capacity=250 * MIB)
    free_all(made, 0, 1, 2)
    made.malloc(3, 40 * MIB)
    assert block_sizes(made) == [[-96], [-80], [40]] and made.num_alloc_retries == 0


def test_several_oversize_blocks_are_freed_from_the_largest_down():
    made = filled([64 * MIB, 96 * MIB, 80 * MIB], "max_split_size_mb:20", capacity=250 * MIB)
    free_all(made, 0, 1, 2)
    made.malloc(3, 150 * MIB)
    assert block_sizes(made) == [[-64], [150]] and made.num_alloc_retries == 0


def test_a_fraction_limits_what_cudamalloc_is_asked_for():
    made = CachingAllocator(parse_settings("per_process_memory_fraction:0.5"), 100 * MIB, 120 * MIB)
    made.malloc(0, 40 * MIB)
    with pytest.raises(OutOfMemory) as error:
        made.malloc(1, 22 * MIB)  # set_fraction && total_allocated_memory + size > allowed_memory_maximum
    assert error.value.capacity_bytes == 60 * MIB
    assert made.malloc(1, 20 * MIB) == 20 * MIB


# ── max_split_size_mb and max_non_split_rounding_mb: get_free_block(), should_split() ────────────────────────


def test_oversize_blocks_are_kept_from_smaller_requests():
    made = filled([64 * MIB], "max_split_size_mb:32")
    made.free(0)
    made.malloc(1, 20 * MIB)
    assert block_sizes(made) == [[-64], [20]]


@pytest.mark.parametrize(
    ("text", "left_over", "taken"),
    [
        ("max_split_size_mb:32", 20 * MIB - 512, True),
        ("max_split_size_mb:32", 20 * MIB, False),  # (*it)->size >= p.size() + max_non_split_rounding_size()
        ("max_split_size_mb:32,max_non_split_rounding_mb:40", 20 * MIB, True),
        ("max_split_size_mb:64,large_segment_size_mb:64", 62 * MIB, True),  # recorded: the default follows it
    ],
)
def test_an_oversize_block_is_not_split_and_taken_only_if_little_is_left(text, left_over, taken):
    made = filled([192 * MIB], text)
    made.free(0)
    allocated = made.malloc(1, 192 * MIB - left_over)
    assert (made.reserved_bytes == 192 * MIB) == taken
    assert allocated >= 192 * MIB if taken else allocated < 192 * MIB


# ── garbage_collection_threshold: garbage_collect_cached_blocks() ────────────────────────────────────────────


@pytest.mark.parametrize(
    ("threshold", "left"), [(0.9, [[-20], [-30], [12], [32]]), (0.5, [[-30], [12], [32]]), (0.1, [[12], [32]])]
)
def test_garbage_is_collected_from_the_oldest_on_until_enough_is_free(threshold, left):
    made = CachingAllocator(
        AllocatorSettings(garbage_collection_threshold=threshold, per_process_memory_fraction=0.8), 125 * MIB
    )
    for ident, size in enumerate((20, 30, 12)):
        made.malloc(ident, size * MIB)
    free_all(made, 0, 2)
    made.malloc(3, 12 * MIB)  # a search ages the block of 20 MiB, freed before
    made.free(1)
    made.malloc(4, 32 * MIB)  # no block is large enough; 62 of 100 allowed MiB are reserved
    assert block_sizes(made) == left


def test_without_a_fraction_no_garbage_is_collected():
    made = filled([60 * MIB], "garbage_collection_threshold:0.1", capacity=200 * MIB)
    made.free(0)
    made.malloc(1, 70 * MIB)  # malloc(): set_fraction && garbage_collection_threshold() > 0.0
    assert block_sizes(made) == [[-60], [70]]


# ── memory snapshots ────────────────────────────────────────────────────────────────────────────────────────


def test_segments_show_every_block_with_its_owner():
    made = filled([100, 3 * MIB])
    made.malloc(7, 5 * MIB)
    made.free(1)
    small, large = made.segments()
    assert (small.size_bytes, small.is_large, small.is_expandable) == (2 * MIB, False, False)
    assert [b[1:] for b in small.blocks] == [(512, 100, 0), (2 * MIB - 512, 0, None)]
    assert large.is_large and large.blocks[1].address == made.address_of(7) == large.address + 3 * MIB
    assert [b[1:] for b in large.blocks] == [(3 * MIB, 0, None), (5 * MIB, 5 * MIB, 7), (12 * MIB, 0, None)]


# ── recordings of the real allocator ────────────────────────────────────────────────────────────────────────


def random_events(seed: int, count: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Methods with their arguments, the same on every Python."""
    draw = random.Random(seed).random
    live: list[int] = []
    for ident in range(count):
        if draw() * 64 > len(live):
            scale = (MIB, 12 * MIB, 40 * MIB, 160 * MIB)[int(4 * draw())]
            live.append(ident)
            yield "malloc", (ident, int(scale * draw() ** 2) // 512 * 512 + (1 if draw() < 0.5 else 0))
        elif draw() < 0.98:
            yield "free", (live.pop(int(len(live) * draw())),)
        else:
            yield "empty_cache", ()


def digest(history: list[tuple[int, int]], blocks: list[tuple[int, bool]]) -> int:
    return zlib.crc32(repr((history, blocks)).encode())


RECORDED = [
    ("", 694157312, 734003200, 73, 60, 748778493),
    ("expandable_segments:True", 725614592, 725614592, 87, 55, 3354535452),
    ("max_split_size_mb:20", 639631360, 734003200, 73, 52, 1729236659),
    ("max_split_size_mb:64,max_non_split_rounding_mb:30", 612368384, 734003200, 83, 53, 3395132020),
    ("roundup_power2_divisions:4", 731906048, 734003200, 81, 72, 3622499476),
    ("roundup_power2_divisions:[1:8,4:2,16:4,>:16]", 727711744, 734003200, 77, 68, 2466923293),
    ("large_segment_size_mb:48", 685768704, 734003200, 81, 70, 1784986313),
    (
        "large_segment_size_mb:36,expandable_segments:True,roundup_power2_divisions:8",
        689963008,
        729808896,
        79,
        63,
        287676087,
    ),
    ("per_process_memory_fraction:0.7,garbage_collection_threshold:0.6", 524288000, 587202560, 96, 96, 2593122561),
    (
        "per_process_memory_fraction:0.7,garbage_collection_threshold:0.3,max_split_size_mb:40",
        551550976,
        587202560,
        92,
        92,
        1019743404,
    ),
    ("per_process_memory_fraction:0.6,expandable_segments:True", 450887680, 509607936, 165, 132, 3434048107),
]
"""Settings; bytes reserved at the end and at the peak; retries; failed requests; checksum of all that happened."""


@pytest.mark.parametrize(("text", "reserved", "peak", "retries", "ooms", "checksum"), RECORDED)
def test_a_random_run_goes_as_in_the_real_allocator(text, reserved, peak, retries, ooms, checksum):
    """Every (allocated, reserved) of 3,000 events, and the blocks at the end, as recorded from torch 2.13.

    Recorded from libc10_cuda.so of the CUDA wheel of torch 2.13.0, over a stand-in for the CUDA runtime and driver
    whose cudaMalloc and cuMemCreate hand out 700 MiB of a card of 800, at rising addresses.
    """
    made = CachingAllocator(parse_settings(text), 700 * MIB, 800 * MIB)
    history = []
    for method, arguments in random_events(seed=13, count=3000):
        with suppress(OutOfMemory):
            getattr(made, method)(*arguments)
        history.append((made.allocated_bytes, made.reserved_bytes))
    blocks = [(block.size_bytes, block.ident is not None) for segment in made.segments() for block in segment.blocks]
    assert (made.reserved_bytes, made.peak_reserved_bytes) == (reserved, peak)
    assert (made.num_alloc_retries, made.num_ooms) == (retries, ooms)
    assert digest(history, blocks) == checksum


# ── what always holds ───────────────────────────────────────────────────────────────────────────────────────

TEXTS = [
    "",
    EXPANDABLE,
    "max_split_size_mb:20",
    "max_split_size_mb:30,max_non_split_rounding_mb:40," + EXPANDABLE,
    "roundup_power2_divisions:[1:4,16:8,>:2],large_segment_size_mb:36",
    "garbage_collection_threshold:0.3,per_process_memory_fraction:0.7",
]
SIZES = st.one_of(
    st.integers(0, 2 * MIB),
    st.integers(0, 100 * MIB),
    st.sampled_from([512, MIB, MIB + 1, 10 * MIB - 512, 10 * MIB, 20 * MIB, 20 * MIB + 512]),
)
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("malloc"), SIZES), st.tuples(st.just("free"), st.integers(0, 60)), st.just(("empty", 0))
    ),
    max_size=60,
)
CAPACITIES = st.sampled_from([None, 150 * MIB, 1 << 30])


def check_books(made: CachingAllocator, live: dict[int, int]) -> None:
    """Segments are tiled, do not overlap, and add up to the counters; `live` has what was asked for."""
    segments = made.segments()
    for segment in segments:
        assert segment.address + segment.size_bytes == segment.blocks[-1].address + segment.blocks[-1].size_bytes
        for before, after in pairwise(segment.blocks):
            assert before.address + before.size_bytes == after.address
            assert before.ident is not None or after.ident is not None, "free neighbours are merged"
    for one, other in pairwise(segments):
        assert one.address + one.size_bytes <= other.address
    owned = [block for segment in segments for block in segment.blocks if block.ident is not None]
    assert {block.ident: block.requested_bytes for block in owned} == live
    assert made.allocated_bytes == sum(block.size_bytes for block in owned)
    assert made.reserved_bytes == sum(segment.size_bytes for segment in segments)
    assert made.requested_bytes == sum(live.values()) <= made.allocated_bytes <= made.reserved_bytes
    assert made.allocated_bytes <= made.peak_allocated_bytes and made.reserved_bytes <= made.peak_reserved_bytes


def play(made: CachingAllocator, events: list[tuple[str, int]], live: dict[int, int]) -> Iterator[None]:
    """Play the events and stop after each; a free takes the oldest live block from some position on."""
    for ident, (kind, number) in enumerate(events):
        if kind == "empty":
            made.empty_cache()
        elif kind == "free" and live:
            freed = list(live)[number % len(live)]
            made.free(freed)
            del live[freed]
        elif kind == "malloc":
            try:
                made.malloc(ident, number)
            except OutOfMemory:
                number = 0
            live.update({ident: number} if number else {})
        yield


@given(EVENTS, st.sampled_from(TEXTS), CAPACITIES)
@hypothesis_settings(deadline=None)
def test_the_books_balance_after_every_event(events, text, capacity):
    made = allocator(text, capacity)
    live: dict[int, int] = {}
    for _ in play(made, events, live):
        check_books(made, live)
        assert made.peak_reserved_bytes <= (capacity or made.peak_reserved_bytes)
    free_all(made, *live)
    made.empty_cache()
    assert (made.allocated_bytes, made.requested_bytes, made.reserved_bytes, made.segments()) == (0, 0, 0, [])


@given(EVENTS, st.sampled_from(TEXTS))
@hypothesis_settings(deadline=None)
def test_a_block_is_as_large_as_was_said_and_stays_where_it_is(events, text):
    made = allocator(text)
    addresses: dict[int, int] = {}
    live: dict[int, int] = {}
    for _ in play(made, events, live):
        addresses = {ident: addresses.get(ident, made.address_of(ident)) for ident in live}
        assert all(made.address_of(ident) == address for ident, address in addresses.items())


# ── settings ────────────────────────────────────────────────────────────────────────────────────────────────


def test_no_settings_are_torchs_defaults():
    assert parse_settings("") == parse_settings("backend:native") == AllocatorSettings()


def test_settings_are_read():
    text = "expandable_segments : True, max_split_size_mb:128,garbage_collection_threshold:0.8,"
    assert parse_settings(text) == AllocatorSettings(
        expandable_segments=True, max_split_size_bytes=128 * MIB, garbage_collection_threshold=0.8
    )


def test_non_split_rounding_follows_the_large_segment():
    assert parse_settings("large_segment_size_mb:64").max_non_split_rounding_bytes == 64 * MIB


@pytest.mark.parametrize(
    ("value", "divisions"),
    [
        ("4", (4,) * 16),
        ("[256:1,512:2,1024:4,>:8]", (1,) * 9 + (2, 4) + (8,) * 5),
        ("[2:4]", (4, 4) + (0,) * 14),
        ("[>:4]", (0,) + (4,) * 15),  # as in torch, the rest starts after the first interval
        ("[64:8,>:2,256:4]", (8,) * 7 + (2, 4) + (2,) * 7),
        ("[65536:4,>:2]", (4,) * 16),
        ("[]", (0,) * 16),
    ],
)
def test_divisions_are_read_as_torch_reads_them(value, divisions):
    """As AcceleratorAllocatorConfig::roundup_power2_divisions(size) of torch 2.13 answers."""
    assert parse_settings(f"roundup_power2_divisions:{value}").roundup_power2_divisions == divisions


def test_settings_of_speed_and_host_memory_are_accepted():
    text = "pinned_use_background_threads:True,release_lock_on_cudamalloc:True,throw_on_cudamalloc_oom:True"
    assert parse_settings(text) == AllocatorSettings()


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        ("expandable_segment:True", "no setting 'expandable_segment'", "Did you mean expandable_segments?"),
        ("frobnicate:1", "no setting 'frobnicate'", "max_split_size_mb"),
        ("expandable_segments:true", "expandable_segments:true", "expandable_segments:True"),
        ("expandable_segments=True", "no key with a value", "key:value"),
        ("max_split_size_mb", "no key with a value", "key:value"),
        ("max_split_size_mb:", "no key with a value", "key:value"),
        (",", "no key with a value", "key:value"),
        ("max_split_size_mb:40,,expandable_segments:True", "no key with a value", "key:value"),
        ("max_split_size_mb:40,max_split_size_mb:50", "given twice", "one of them"),
        ("max_split_size_mb:40.5", "max_split_size_mb:40.5", "whole number"),
        ("max_split_size_mb:-1", "max_split_size_mb:-1", "whole number"),
        ("max_split_size_mb:19", "max_split_size_mb:19", "at least 20"),
        ("max_split_size_mb:30,large_segment_size_mb:40", "max_split_size_mb:30", "at least 40"),
        ("max_non_split_rounding_mb:19", "max_non_split_rounding_mb:19", "at least 20"),
        ("large_segment_size_mb:10", "large_segment_size_mb:10", "more than 10"),
        ("garbage_collection_threshold:1", "garbage_collection_threshold:1", "0.8"),
        ("garbage_collection_threshold:half", "garbage_collection_threshold:half", "0.8"),
        ("per_process_memory_fraction:1.5", "per_process_memory_fraction:1.5", "from 0 to 1"),
        ("roundup_power2_divisions:3", "roundup_power2_divisions:3", "powers of two"),
        ("roundup_power2_divisions:[300:1]", "roundup_power2_divisions:300", "powers of two"),
        ("roundup_power2_divisions:[256:3]", "roundup_power2_divisions:3", "powers of two"),
        ("roundup_power2_divisions:[256]", "roundup_power2_divisions", "whole number"),
        ("roundup_power2_divisions:[256:1", "roundup_power2_divisions:[256:1", "brackets"),
        ("backend:cudaMallocAsync", "not simulated", "backend:native"),
        ("backend:malloc", "backend:malloc", "native"),
    ],
)
def test_what_torch_refuses_is_refused_with_what_to_write(text, what, hint):
    with pytest.raises(SpecError) as error:
        parse_settings(text)
    assert what in error.value.what and hint in error.value.hint


@given(st.text(alphabet="eaxpn_d:,[]>1024 Trueblkmsz"))
def test_any_text_is_read_or_refused_in_words(text):
    try:
        assert isinstance(parse_settings(text), AllocatorSettings)
    except SpecError as error:
        assert error.what


# ── several streams ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_block_serves_the_stream_that_it_was_got_for() -> None:
    made = CachingAllocator()
    made.malloc(0, 20 * MIB, stream=1)
    made.free(0)
    made.malloc(1, 20 * MIB)
    assert made.reserved_bytes == 40 * MIB
    made.malloc(2, 20 * MIB, stream=1)
    assert made.reserved_bytes == 40 * MIB
    assert sorted(segment.stream for segment in made.segments()) == [0, 1]


def test_an_emptied_cache_gives_back_the_blocks_of_all_streams() -> None:
    made = CachingAllocator()
    for stream in (0, 1, 2):
        made.malloc(stream, 20 * MIB, stream=stream)
        made.free(stream)
    made.empty_cache()
    assert made.reserved_bytes == 0


def test_a_block_goes_by_another_identifier():
    made = filled([4 * MIB])
    made.rename(0, 9)
    made.rename(5, 6)  # not live
    free_all(made, 0)
    assert made.allocated_bytes == 4 * MIB
    free_all(made, 9)
    assert made.allocated_bytes == 0


def test_what_is_not_split_off_counts_at_the_peak():
    made = filled([35 * MIB])
    assert (made.allocated_bytes, made.rounding_at_peak_bytes) == (36 * MIB, MIB)
    assert made.largest_free_bytes == 0
