"""Small workloads that several GPUs share, and what is alive in their traces."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from oracle.sharded_run import CONFIG, CONFIGS, RANK, TOKENS

from peftbench.dryrun.trace.replay import alive_at
from peftbench.dryrun.trace.trace import Block, Trace
from peftbench.dryrun.workload import Workload
from peftbench.inputs.recipe import AdapterSpec, ParallelismSpec, QuantizationSpec, TrainingSpec
from peftbench.memory import Part, Phase


def shared(strategy: str, method: str, gpus: int, vocab_size: int = CONFIG["vocab_size"], **fields: Any) -> Workload:
    """What the processes of oracle/sharded_run.py run, with other fields of the recipe where they are given."""
    offload = fields.pop("cpu_offload", False)
    recipe = TrainingSpec(
        adapter=AdapterSpec(r=RANK, target_modules=("all-linear",)) if "lora" in method else None,
        quantization=QuantizationSpec() if method == "qlora" else None,
        parallelism=ParallelismSpec(gpus=gpus, strategy=strategy, cpu_offload=offload),
        **{"sequence_length": TOKENS, **fields},
    )
    return Workload(config=json.dumps({**CONFIGS[method], "vocab_size": vocab_size}, sort_keys=True), recipe=recipe)


def alive_in(trace: Trace, phase: Phase) -> list[Block]:
    """What is alive at the end of this phase of the last step."""
    places = [*(mark.position for mark in trace.marks), len(trace.events)]
    index = max(i for i, mark in enumerate(trace.marks) if mark.phase is phase)
    return [trace.blocks[number] for number in alive_at(trace, places[index + 1])]


def bytes_in(trace: Trace, phase: Phase) -> Counter[Part]:
    """Bytes by part at the end of this phase of the last step, as they were asked for."""
    found: Counter[Part] = Counter()
    for block in alive_in(trace, phase):
        found[block.part] += block.bytes
    return found


def most_in(trace: Trace, *parts: Part) -> int:
    """The most bytes of these parts that were ever alive at once."""
    now = most = 0
    for event in trace.events:
        block = trace.blocks[event if event >= 0 else ~event]
        if block.part in parts:
            now += block.bytes if event >= 0 else -block.bytes
            most = max(most, now)
    return most
