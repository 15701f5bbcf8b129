"""Peaks, parts and failures of hand-made traces."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from peftbench.allocator.settings import parse_settings
from peftbench.base.units import MIB
from peftbench.catalog.gpus import find_gpu
from peftbench.dryrun.session import DryRun
from peftbench.dryrun.trace.profile import profile_of
from peftbench.dryrun.trace.replay import Walk, alive_at, replay
from peftbench.dryrun.trace.trace import EMPTY_CACHE, Block, Mark, Trace
from peftbench.dryrun.workload import Workload
from peftbench.inputs.recipe import TrainingSpec
from peftbench.memory import Part, Phase


def block(size: int, part: Part = Part.ACTIVATIONS) -> Block:
    return Block(size, part, "model.layers.0", "aten::mm", "1,2", "float32")


def trace_of(*steps: tuple[str, list[int]], blocks: list[Block]) -> Trace:
    trace = Trace(blocks, facts={"device": "cuda"})
    for name, events in steps:
        trace.marks.append(Mark(len(trace.events), 0, name))
        trace.events += events
    return trace


STEP = trace_of(
    (Phase.LOAD.value, [0]),
    (Phase.FORWARD.value, [1, 2, ~2]),
    (Phase.BACKWARD.value, [3, ~1, ~3]),
    blocks=[block(100 * MIB, Part.WEIGHTS), block(20 * MIB), block(40 * MIB), block(30 * MIB, Part.GRADIENTS)],
)


def test_a_phase_peaks_at_its_highest_moment() -> None:
    peaks = {peak.phase: peak for peak in replay(STEP).peaks}
    assert [peaks[phase].allocated_bytes // MIB for phase in (Phase.LOAD, Phase.FORWARD, Phase.BACKWARD)] == [
        100, 160, 150,
    ]  # fmt: skip
    assert peaks[Phase.BACKWARD].parts == {
        Part.WEIGHTS: 100 * MIB, Part.ACTIVATIONS: 20 * MIB, Part.GRADIENTS: 30 * MIB,
    }  # fmt: skip


def test_parts_sum_to_what_is_allocated() -> None:
    for peak in replay(STEP).peaks:
        assert sum(peak.parts.values()) == peak.allocated_bytes <= peak.reserved_bytes


def test_the_cache_is_emptied_between_steps() -> None:
    blocks = [block(30 * MIB), block(20 * MIB)]
    kept = trace_of((Phase.FORWARD.value, [0, ~0]), (Phase.STEP.value, [1]), blocks=blocks)
    emptied = trace_of((Phase.FORWARD.value, [0, ~0]), (EMPTY_CACHE, []), (Phase.STEP.value, [1]), blocks=blocks)
    assert replay(kept).peaks[-1].reserved_bytes == 30 * MIB
    assert replay(emptied).peaks[-1].reserved_bytes == 20 * MIB


def test_a_small_card_fails_where_it_runs_out() -> None:
    failure = replay(STEP, capacity_bytes=130 * MIB).failure
    assert failure is not None
    assert (failure.phase, failure.block.bytes, failure.error.allocated_bytes) == (
        Phase.FORWARD, 40 * MIB, 120 * MIB,
    )  # fmt: skip


def test_settings_of_the_allocator_count() -> None:
    blocks = [block(size * MIB) for size in (21, 22, 23)]
    growing = trace_of((Phase.FORWARD.value, [0, ~0, 1, ~1, 2, ~2]), blocks=blocks)
    settings = parse_settings("expandable_segments:True")
    assert replay(growing, settings).reserved_bytes < replay(growing).reserved_bytes


def test_a_card_never_shows_more_than_it_has() -> None:
    blocks = [block(size * MIB) for size in (6000, 6100, 6200)]
    growing = trace_of((Phase.FORWARD.value, [0, ~0, 1, ~1, 2, ~2]), blocks=blocks)
    t4 = find_gpu("t4")
    dry_run = DryRun(Workload(config="{}", recipe=TrainingSpec()), growing, t4)
    assert dry_run.on_card is not None and dry_run.on_card.num_alloc_retries == 1
    profile = dry_run.profile
    assert profile.needed_bytes > t4.memory_bytes == profile.device_bytes
    assert profile.reserved_bytes == t4.usable_bytes > dry_run.observed.reserved_bytes
    assert dry_run.observed.allocated_bytes == dry_run.profile.allocated_bytes


@given(st.lists(st.integers(1, 64 * MIB), min_size=1, max_size=20), st.data())
def test_a_walk_knows_what_is_alive(sizes: list[int], data: st.DataObject) -> None:
    events = list(range(len(sizes)))
    for number in data.draw(st.permutations(range(len(sizes)))):
        events.insert(data.draw(st.integers(events.index(number) + 1, len(events))), ~number)
    trace = Trace([block(size) for size in sizes], events, [Mark(0, 0, Phase.FORWARD.value)])
    replayed = replay(trace)
    position = data.draw(st.integers(0, len(events)))
    walk = Walk(trace, replayed.sizes)
    walk.to(position)
    assert walk.allocated_bytes == sum(replayed.sizes[number] for number in alive_at(trace, position))
    assert replayed.highest.allocated_bytes >= walk.allocated_bytes


def test_a_profile_has_the_three_sizes_of_the_replay() -> None:
    replayed = replay(STEP)
    profile = profile_of(STEP, replayed, None)
    assert profile.peak_phase is Phase.FORWARD
    assert profile.allocated_bytes == replayed.highest.allocated_bytes
    assert profile.reserved_bytes == replayed.reserved_bytes
    assert profile.device_low_bytes <= profile.device_bytes <= profile.device_high_bytes


def test_a_part_of_one_size_is_one_component() -> None:
    weights = [c for c in profile_of(STEP, replay(STEP), None).components if c.part is Part.WEIGHTS]
    assert [component.phases for component in weights] == [{Phase.LOAD, Phase.FORWARD, Phase.BACKWARD}]
    assert "100.00 MiB float32 [1,2] of aten::mm in model.layers.0" in weights[0].because


def test_fake_cpu_has_a_wider_band() -> None:
    cpu = Trace(STEP.blocks, STEP.events, STEP.marks, {"device": "cpu"})
    bands = [profile_of(trace, replay(trace), None) for trace in (STEP, cpu)]
    assert bands[0].device_high_bytes < bands[1].device_high_bytes
