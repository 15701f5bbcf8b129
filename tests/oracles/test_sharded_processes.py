"""One GPU's part of weights, gradients and states, to the byte, against two real processes of FSDP2 and DeepSpeed."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

pytest.importorskip("torch")

from sharded_processes import run_sharded
from sharded_run import CONFIG, RANK, TOKENS

from peftbench.estimate.training import estimate_training
from peftbench.memory import Part, Phase
from peftbench.spec.adapter import AdapterSpec
from peftbench.spec.config_json import read_config
from peftbench.spec.parallelism import ParallelismSpec
from peftbench.spec.training import TrainingSpec

pytestmark = [pytest.mark.oracle, pytest.mark.slow]

MODEL = read_config(CONFIG, "tiny", "test")
ADAPTERS = {"full": None, "lora": AdapterSpec(r=RANK, target_modules=("all-linear",))}
needs_deepspeed = pytest.mark.skipif(find_spec("deepspeed") is None, reason="deepspeed is not installed")
STRATEGIES = ("fsdp", pytest.param("zero2", marks=needs_deepspeed), pytest.param("zero3", marks=needs_deepspeed))


def predicted(strategy: str, method: str) -> dict[str, int]:
    """What the estimate has of the parts that the processes report."""
    parallelism = ParallelismSpec(gpus=2, strategy=strategy)
    training = TrainingSpec(sequence_length=TOKENS, adapter=ADAPTERS[method], parallelism=parallelism)
    at_step = [c for c in estimate_training(MODEL, training).alive_in(Phase.STEP) if "whole on every" not in c.because]

    def of(part: Part) -> int:
        return sum(c.bytes for c in at_step if c.part is part)

    weights, adapters = of(Part.WEIGHTS), of(Part.ADAPTERS)
    frozen, trained = (0, weights) if method == "full" else (weights, adapters)
    return {"frozen": frozen, "trained": trained, "gradients": of(Part.GRADIENTS), "states": of(Part.OPTIMIZER)}


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_first_part_is_that_of_the_library(strategy: str, method: str) -> None:
    ours = predicted(strategy, method)
    first, *others = run_sharded(strategy, method)
    first["states"] += first.pop("master", 0)
    assert first == {name: ours[name] for name in first}
    assert all(other["states"] <= first["states"] for other in others)
