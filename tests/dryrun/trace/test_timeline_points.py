"""The course of memory: its points against the events themselves, and what is alike at the peak."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_traces import Tape, inference_run, random_traces, training_run

from peftbench.allocator.settings import parse_settings
from peftbench.base.units import MIB
from peftbench.dryrun.trace.replay import DEFAULT, Replay, replay
from peftbench.dryrun.trace.timeline import Point, alike, holders, timeline
from peftbench.dryrun.trace.trace import Trace
from peftbench.memory import Part, Phase


def points_of(trace: Trace, points: int = 600) -> tuple[Point, ...]:
    return timeline(trace, replay(trace), DEFAULT, points)


def alive_bytes(trace: Trace, replayed: Replay, event: int) -> int:
    """What the first so many events leave, counted one by one."""
    live = set()
    for number in trace.events[:event]:
        live.add(number) if number >= 0 else live.discard(~number)
    return sum(replayed.sizes[number] for number in live)


@given(random_traces(), st.integers(1, 30), st.sampled_from(("", "expandable_segments:True")))
def test_points_are_moments_of_the_run(trace, count, text):
    settings = parse_settings(text)
    replayed = replay(trace, settings)
    points = timeline(trace, replayed, settings, count)
    events = [point.event for point in points]
    assert events == sorted(set(events)) and events[-1] == len(trace.events)
    for point in points:
        assert point.allocated_bytes == alive_bytes(trace, replayed, point.event)
        assert point.reserved_bytes >= point.allocated_bytes
        last = next(number for number in reversed(trace.events[: point.event]) if number >= 0)
        assert (point.module, point.operation) == (trace.blocks[last].module, trace.blocks[last].operation)
        begun = [mark for mark in trace.marks if mark.phase and mark.position < point.event]
        assert (point.step, point.phase) == (begun[-1].step, begun[-1].phase)


@given(random_traces(), st.integers(1, 30))
def test_no_peak_is_left_out(trace, count):
    replayed = replay(trace)
    points = timeline(trace, replayed, DEFAULT, count)
    assert max(point.allocated_bytes for point in points) == replayed.highest.allocated_bytes
    assert max(point.reserved_bytes for point in points) == replayed.reserved_bytes
    highest = next(point for point in points if point.event == replayed.highest.position)
    assert highest.parts == replayed.highest.parts
    for peak in replayed.peaks:
        shown = [point.allocated_bytes for point in points if (point.step, point.phase) == (peak.step, peak.phase)]
        assert not shown or max(shown) <= peak.allocated_bytes


@pytest.mark.parametrize("count", [1, 5, 20])
def test_there_are_about_as_many_points_as_were_asked_for(count):
    trace = inference_run(500)
    assert len(trace.events) > 1500
    extra = 2 * len(trace.marks)  # where phases begin, and their peaks
    assert len(points_of(trace, count)) <= count + extra + 4


def test_loading_is_only_shown_where_it_ends():
    trace = training_run()
    first = points_of(trace)[0]
    assert (first.event, first.phase) == (4, Phase.LOAD)
    assert first.parts == {Part.WEIGHTS: 24 * MIB, Part.ADAPTERS: 2 * MIB}


def test_a_run_that_peaks_in_loading_is_shown_from_there_on():
    tape = Tape()
    tape.mark(Phase.LOAD)
    tape.take(MIB, Part.WEIGHTS)
    tape.drop(tape.take(50 * MIB, Part.WORKSPACE, "", "conversion"))
    tape.mark(Phase.FORWARD)
    tape.take(MIB, Part.ACTIVATIONS)
    points = points_of(tape.trace)
    assert points[0].event == 2
    assert points[0].allocated_bytes == 51 * MIB


def test_an_emptied_cache_is_a_step_down_in_what_is_reserved():
    trace = training_run(steps=2, flush=True)
    flush = next(mark for mark in trace.marks if mark.phase is None)
    before, after = (
        next(point.reserved_bytes for point in points_of(trace) if point.event == event)
        for event in (flush.position, flush.position + 1)
    )
    assert after < before


# ── the peak ────────────────────────────────────────────────────────────────────────────────────────────────


def test_layers_are_put_together_and_what_differs_is_not():
    trace = training_run(layers=12)
    groups = alike(holders(trace, replay(trace)))
    assert [(g.like.module, g.blocks, g.bytes // MIB) for g in groups[:4]] == [
        ("model.layers.*.mlp", 12, 96), ("model.layers.*", 12, 48), ("lm_head", 1, 24), ("", 1, 24),
    ]  # fmt: skip
    assert groups[-1].like.module == "model.layers.0.lora_A", "one of a kind keeps its number"


@given(random_traces())
def test_groups_hold_what_the_peak_holds(trace):
    replayed = replay(trace)
    groups = alike(holders(trace, replayed))
    assert sum(group.bytes for group in groups) == replayed.highest.allocated_bytes
    assert sum(group.blocks for group in groups) == len(holders(trace, replayed))
    assert [group.bytes for group in groups] == sorted((group.bytes for group in groups), reverse=True)
