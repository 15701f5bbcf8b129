"""Records of runs, made by hand for tests."""

from __future__ import annotations

import json
from typing import Any

from peftbench.inputs.case import Case
from peftbench.inputs.recipe import AdapterSpec, DType, TrainingSpec
from peftbench.memory import Phase
from peftbench.records.environment import Environment, Outcome
from peftbench.records.run import Measurement, PhasePeak, RunRecord, Sample

TINY = {
    "model_type": "llama", "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256, "tie_word_embeddings": True,
}  # fmt: skip

RECIPE = TrainingSpec(
    sequence_length=32, dtype=DType.FLOAT32, autocast=False, gradient_checkpointing=False,
    adapter=AdapterSpec(r=4, target_modules=("all-linear",)),
)  # fmt: skip


def case(id: str = "lora", **options: Any) -> Case:
    """A case of a tiny Llama."""
    return Case(**{
        "id": id, "model": "tiny", "config": json.dumps(TINY, sort_keys=True), "recipe": RECIPE, "device": "cpu",
        "steps": 2, **options,
    })  # fmt: skip


def environment(**fields: Any) -> Environment:
    """A CPU."""
    return Environment(**{
        "device": "cpu", "product": "a CPU", "uuid": None, "memory_bytes": 1 << 34, "compute_capability": None,
        "multiprocessors": None, "driver": None, "threads": 1, "platform": "Linux", "versions": {"torch": "2.13.0"},
        "alloc_conf": "", "started_at": "2026-11-01T00:00:00Z", **fields,
    })  # fmt: skip


CARD = {
    "device": "cuda", "product": "NVIDIA L4", "uuid": "GPU-1", "memory_bytes": 23_650_000_000,
    "compute_capability": (8, 9), "multiprocessors": 58, "driver": "570.1",
}  # fmt: skip


def measurement(**fields: Any) -> Measurement:
    """A run that ended well."""
    return Measurement(**{
        "outcome": Outcome.OK, "step_s": (0.5, 0.25), "losses": (6.0, 5.5, 5.0, 4.5),
        "phases": (PhasePeak(0, Phase.LOAD, 900), PhasePeak(0, Phase.FORWARD, 1500, None, 1000),
                   PhasePeak(1, Phase.FORWARD, 1600, None, 1200), PhasePeak(1, Phase.BACKWARD, 1800, None, 1500)),
        "samples": (Sample(0.0, None, 50), Sample(0.01, None, 70)), "marks": ((0.0, Phase.LOAD),), **fields,
    })  # fmt: skip


def record(id: str = "lora", suite: str = "suite", **fields: Any) -> RunRecord:
    """A whole record."""
    return RunRecord(**{
        "suite": suite, "case": case(id), "environment": environment(), "measurement": measurement(), **fields,
    })  # fmt: skip
