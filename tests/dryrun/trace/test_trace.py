"""Traces as JSON and back."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftbench.dryrun.trace.trace import EMPTY_CACHE, Block, Mark, Trace, trace_from_json, trace_to_json
from peftbench.memory import Part, Phase

NAMES = st.text(max_size=8)
BLOCKS = st.builds(Block, st.integers(0, 1 << 40), st.sampled_from(Part), NAMES, NAMES, NAMES, NAMES)
MARKS = st.builds(Mark, st.integers(0, 9), st.integers(0, 9), st.sampled_from([*(p.value for p in Phase), EMPTY_CACHE]))


@given(st.lists(BLOCKS), st.lists(st.integers(-9, 9)), st.lists(MARKS))
def test_a_trace_survives_json(blocks: list[Block], events: list[int], marks: list[Mark]) -> None:
    trace = Trace(blocks, events, marks, {"num_parameters": 3})
    assert trace_from_json(json.loads(json.dumps(trace_to_json(trace)))) == trace


def test_another_version_is_not_read() -> None:
    with pytest.raises(ValueError, match="version 0"):
        trace_from_json({**trace_to_json(Trace()), "version": 0})


def test_emptying_the_cache_is_no_phase() -> None:
    assert Mark(0, 1, EMPTY_CACHE).phase is None
