"""One GPU's part of weights, gradients and states, to the byte, against real processes of FSDP2 and DeepSpeed."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

pytest.importorskip("torch")

from oracle.sharded_processes import run_sharded
from oracle.sharded_run import CONFIGS, RANK, TOKENS

from peftbench.estimate.sharding.split import PERSISTENT
from peftbench.estimate.training import estimate_training
from peftbench.inputs.model.config_json import read_config
from peftbench.inputs.recipe import AdapterSpec, ParallelismSpec, QuantizationSpec, TrainingSpec
from peftbench.memory import Part, Phase

pytestmark = [pytest.mark.oracle, pytest.mark.slow]

ADAPTER = AdapterSpec(r=RANK, target_modules=("all-linear",))
needs_deepspeed = pytest.mark.skipif(find_spec("deepspeed") is None, reason="deepspeed is not installed")


def predicted(strategy: str, method: str, gpus: int, passes: int = 1) -> dict[str, int]:
    """What the estimate has of the parts that the processes report."""
    training = TrainingSpec(
        sequence_length=TOKENS,
        gradient_accumulation_steps=passes,
        adapter=ADAPTER if "lora" in method else None,
        quantization=QuantizationSpec() if method == "qlora" else None,
        parallelism=ParallelismSpec(gpus=gpus, strategy=strategy),
    )
    model = read_config(CONFIGS[method], "tiny", "test")
    profile = estimate_training(model, training)
    at_step = profile.alive_in(Phase.STEP)

    def of(*parts: Part) -> int:
        return sum(c.bytes for c in at_step if c.part in parts and c.because != PERSISTENT)

    weights, adapters = of(Part.WEIGHTS, Part.UNQUANTIZED), of(Part.ADAPTERS)
    frozen, trained = (weights, adapters) if training.adapter else (0, weights)
    accumulated = sum(c.bytes for c in profile.alive_in(Phase.FORWARD) if c.part is Part.ACCUMULATED)
    persistent = sum(c.bytes for c in at_step if c.because == PERSISTENT)
    return {
        "frozen": frozen, "trained": trained, "persistent": persistent, "accumulated": accumulated,
        "gradients": of(Part.GRADIENTS), "states": of(Part.OPTIMIZER),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("strategy", "method", "gpus"),
    [
        ("fsdp", "full", 2), ("fsdp", "tied", 3), ("fsdp", "lora", 2), ("fsdp", "qlora", 3),
        *(
            pytest.param(*case, marks=needs_deepspeed)
            for case in (
                ("zero1", "lora", 3), ("zero2", "full", 2), ("zero2", "lora", 2), ("zero3", "full", 2),
                ("zero3", "tied", 3), ("zero3", "lora", 2),
            )
        ),
    ],
)  # fmt: skip
def test_the_first_part_is_that_of_the_library(strategy: str, method: str, gpus: int) -> None:
    ours = predicted(strategy, method, gpus)
    first, *others = run_sharded(strategy, method, gpus)
    first["states"] += first.pop("master", 0)
    assert first == {name: ours[name] for name in first}
    assert all(other["states"] <= first["states"] for other in others)


@pytest.mark.parametrize(("method", "gpus"), [("full", 2), ("tied", 2), ("lora", 2), ("qlora", 2)])
def test_whole_gradients_wait_for_the_last_micro_batch(method: str, gpus: int) -> None:
    ours = predicted("fsdp", method, gpus, passes=3)
    first, *others = run_sharded("fsdp", method, gpus, passes=3)
    assert first == {name: ours[name] for name in first}
    assert all(other["accumulated"] == first["accumulated"] > 0 for other in others)
