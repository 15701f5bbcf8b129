"""A dry run of DDP: the buckets of its reducer, and what it does to outputs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")
pytest.importorskip("bitsandbytes")

from dryruns.several_gpus import alive_in, most_in, shared
from oracle.sharded_run import CONFIG, TOKENS

from peftbench.dryrun.cache import TraceCache
from peftbench.dryrun.trace.trace import Trace
from peftbench.dryrun.workload import Workload
from peftbench.inputs.model.config_json import read_config
from peftbench.inputs.model.weights import num_parameters
from peftbench.memory import Part, Phase

Run = Callable[[Workload], Trace]
VOCABULARY = 20_011
"""The head's matrix alone is more than 1 MiB."""
WEIGHTS = 2 * num_parameters(read_config({**CONFIG, "vocab_size": VOCABULARY}, "tiny", "test"))


def buckets(trace: Trace, phase: Phase) -> list[int]:
    return [block.bytes for block in alive_in(trace, phase) if block.part is Part.BUCKETS]


def test_buckets_are_a_second_copy_of_the_gradients(dry_run: Run) -> None:
    """One of all at first; then the first ends where it has 1 MiB, in the order of the backward pass."""
    trace = dry_run(shared("ddp", "full", 2, vocab_size=VOCABULARY))
    head = 2 * VOCABULARY * CONFIG["hidden_size"]
    assert buckets(trace, Phase.LOAD) == [WEIGHTS]
    assert sorted(buckets(trace, Phase.STEP)) == sorted([head, WEIGHTS - head])
    assert most_in(trace, Part.BUCKETS) < WEIGHTS + 1024, "the old one goes before the new ones come"


def test_buckets_stay_where_parameters_may_be_unused(dry_run: Run) -> None:
    trace = dry_run(shared("ddp", "lora", 2, vocab_size=VOCABULARY // 10))
    trained = trace.facts["trainable_parameters"]
    assert buckets(trace, Phase.FORWARD) == buckets(trace, Phase.STEP) == [4 * trained]


@pytest.mark.parametrize(("method", "vocabulary", "copies"), [("full", VOCABULARY, 0), ("lora", VOCABULARY // 10, 2)])
def test_logits_are_copied_where_parameters_may_be_unused(
    dry_run: Run, method: str, vocabulary: int, copies: int
) -> None:  # fmt: skip
    """The Trainer has DDP look for unused ones under PEFT, and without checkpointing: its sink copies in each step."""
    trace = dry_run(shared("ddp", method, 2, vocab_size=vocabulary))
    copied = [b for b in trace.blocks if b.operation == "aten::clone" and b.shape == f"1,{TOKENS},{vocabulary}"]
    assert len(copied) == copies


def test_copies_of_a_model_share_a_trace(tmp_path: Path) -> None:
    cache = TraceCache(tmp_path, pytest.fail)
    assert cache.path(shared("ddp", "lora", 2)) == cache.path(shared("ddp", "lora", 8))
    assert cache.path(shared("fsdp", "lora", 2)) != cache.path(shared("fsdp", "lora", 8))
