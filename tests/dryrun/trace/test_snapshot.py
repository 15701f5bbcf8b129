"""The memory snapshot: its history adds up to its state, and torch's own readers understand it."""

from __future__ import annotations

import pickle
import pickletools
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_traces import random_traces, training_run

from peftbench.allocator.settings import parse_settings
from peftbench.base.units import MIB
from peftbench.dryrun.trace.replay import DEFAULT, replay
from peftbench.dryrun.trace.snapshot import snapshot, snapshot_bytes

CONFIGURATIONS = ("", "expandable_segments:True", "max_split_size_mb:32")
GIVEN_BACK = ("segment_free", "segment_unmap")
GOT = ("segment_alloc", "segment_map")

VIEWER = {
    "PROTO", "FRAME", "STOP", "MARK", "MEMOIZE", "BINGET", "LONG_BINGET", "BINPUT", "LONG_BINPUT", "EMPTY_DICT",
    "EMPTY_LIST", "EMPTY_TUPLE", "APPEND", "APPENDS", "SETITEM", "SETITEMS", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3",
    "LIST", "DICT", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT",
    "SHORT_BINUNICODE", "BINUNICODE",
}  # fmt: skip
"""What `unpickle` of torch/utils/viz/MemoryViz.js (torch 2.6) reads; it raises for anything else."""


def history_of(found: dict) -> list[dict]:
    return found["device_traces"][0]


# ── the history and the state ───────────────────────────────────────────────────────────────────────────────


@given(random_traces(), st.sampled_from(CONFIGURATIONS))
def test_the_history_ends_in_the_state(trace, text):
    found = snapshot(trace, parse_settings(text))
    live: dict[int, int] = {}
    reserved = 0
    for entry in history_of(found):
        if entry["action"] == "alloc":
            assert entry["addr"] not in live
            live[entry["addr"]] = entry["size"]
        elif entry["action"] == "free_completed":
            assert live.pop(entry["addr"]) == entry["size"]
        elif entry["action"] in GOT:
            reserved += entry["size"]
        elif entry["action"] in GIVEN_BACK:
            reserved -= entry["size"]
    blocks = [block for segment in found["segments"] for block in segment["blocks"]]
    active = [block for block in blocks if block["state"] == "active_allocated"]
    assert {block["address"]: block["requested_size"] for block in active} == live
    assert sum(segment["total_size"] for segment in found["segments"]) == reserved


@given(random_traces(), st.sampled_from(CONFIGURATIONS))
def test_it_is_the_replay_that_is_shown(trace, text):
    settings = parse_settings(text)
    found = snapshot(trace, settings)
    reserved = peak = 0
    for entry in history_of(found):
        sign = (entry["action"] in GOT) - (entry["action"] in GIVEN_BACK)
        reserved += sign * entry["size"]
        peak = max(peak, reserved)
    assert peak == replay(trace, settings).reserved_bytes


@given(random_traces(), st.sampled_from(CONFIGURATIONS))
def test_blocks_tile_their_segments(trace, text):
    for segment in snapshot(trace, parse_settings(text))["segments"]:
        address = segment["address"]
        for block in segment["blocks"]:
            assert block["address"] == address
            address += block["size"]
        assert address == segment["address"] + segment["total_size"]
        active = [block for block in segment["blocks"] if block["state"] == "active_allocated"]
        assert segment["allocated_size"] == segment["active_size"] == sum(block["size"] for block in active)
        assert segment["requested_size"] == sum(block["requested_size"] for block in active)


@given(random_traces(), st.sampled_from(CONFIGURATIONS))
def test_an_allocation_lies_in_memory_that_was_got_before(trace, text):
    got: dict[int, int] = {}  # bytes of mapped pages by their address, in pieces of 2 MiB
    for entry in history_of(snapshot(trace, parse_settings(text))):
        pages = range(entry["addr"] // (2 * MIB), -(-(entry["addr"] + entry["size"]) // (2 * MIB)))
        if entry["action"] in GOT:
            got.update(dict.fromkeys(pages, 1))
        elif entry["action"] in GIVEN_BACK:
            assert all(got.pop(page) for page in pages)
        elif entry["action"] == "alloc":
            assert all(page in got for page in pages)


def test_a_frame_says_what_was_allocated_and_when():
    (gradient,) = (
        entry for entry in history_of(snapshot(training_run(steps=1), DEFAULT))
        if entry["action"] == "alloc" and entry.get("category") == "gradients"
    )  # fmt: skip
    assert [f"{f['filename']}:{f['line']}:{f['name']}" for f in gradient["frames"]] == [
        "model.layers.0.lora_A:0:aten::mm", "gradients:0:float32 [4,4]", "step:1:backward pass",
    ]  # fmt: skip


def test_a_free_says_where_its_memory_came_from():
    history = history_of(snapshot(training_run(steps=1), DEFAULT))
    freed = [entry for entry in history if entry["action"] == "free_requested"]
    assert freed[-1]["frames"][0]["filename"] == "model.layers.0.lora_A"
    assert freed[-1]["frames"][-1] == {"filename": "freed in", "line": 1, "name": "optimizer step"}


def test_an_emptied_cache_gives_segments_back():
    actions = [entry["action"] for entry in history_of(snapshot(training_run(flush=True), DEFAULT))]
    assert "segment_free" in actions
    settings = parse_settings("expandable_segments:True")
    actions = [entry["action"] for entry in history_of(snapshot(training_run(flush=True), settings))]
    assert {"segment_map", "segment_unmap"} <= set(actions)
    assert not {"segment_alloc", "segment_free"} & set(actions)


# ── the page https://pytorch.org/memory_viz ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("text", CONFIGURATIONS)
def test_the_page_can_read_the_pickle(text):
    operations = list(pickletools.genops(snapshot_bytes(training_run(steps=3, layers=200), parse_settings(text))))
    assert {operation.name for operation, _, _ in operations} <= VIEWER
    assert 2 <= operations[0][1] <= 4, "the protocol"


def test_the_page_finds_what_it_looks_for():
    found = snapshot(training_run(), DEFAULT)
    assert {segment["device"] for segment in found["segments"]} == {0}, "it shows the segments of one device"
    categories = {entry["category"] for entry in history_of(found) if "category" in entry}
    assert {"weights", "logits and loss", "unknown"} <= categories, "without the last one it fails"
    assert all({"addr", "size", "stream", "frames"} <= entry.keys() for entry in history_of(found))
    assert max(entry["addr"] for entry in history_of(found)) < 1 << 53, "JavaScript's whole numbers"


# ── torch ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.oracle
@pytest.mark.parametrize("text", CONFIGURATIONS)
def test_torch_reads_it(text):
    viz = pytest.importorskip("torch.cuda._memory_viz")
    trace, settings = training_run(steps=2, flush=True), parse_settings(text)

    def read() -> dict:
        return pickle.loads(snapshot_bytes(trace, settings))

    weights = 3 * 8 * MIB + 2 * MIB + 6 * MIB
    assert f"total_allocated: {viz.Bytes(weights)}" in viz.segsum(read())
    assert f"{len(history_of(read()))} entries" in viz.trace(read())
    for plot in (viz.segments, viz.memory):
        flames = plot(read(), lambda lines: lines)
        assert "active_allocated;step:0:load;weights:0:float32 [1024,4096];model.layers.1.mlp:0:loading" in flames
    for plot in (viz.trace_plot, viz.segment_plot):
        assert "add_local_files" in plot(read())
    assert len(viz.trace_plot(read(), filter_freed=True)) < len(viz.trace_plot(read()))


@pytest.mark.oracle
def test_torch_reads_the_file(tmp_path):
    pytest.importorskip("torch")
    path = tmp_path / "memory.pickle"
    path.write_bytes(snapshot_bytes(training_run(), DEFAULT))
    command = [sys.executable, "-m", "torch.cuda._memory_viz", "stats", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "total_reserved" in done.stdout
