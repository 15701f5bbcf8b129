"""One GPU's part in a dry run, to the byte, against real processes of FSDP2."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytest.importorskip("torch")
pytest.importorskip("bitsandbytes")

from dryruns.several_gpus import alive_in, most_in, shared
from oracle.sharded_processes import run_sharded

from peftbench.dryrun.trace.trace import Trace
from peftbench.dryrun.workload import Workload
from peftbench.memory import Part, Phase

pytestmark = [pytest.mark.oracle, pytest.mark.slow]

CUT = "aten::new_zeros"
"""What makes FSDP's parts of parameters; buffers come otherwise."""


def found_in(trace: Trace) -> dict[str, int]:
    """What the processes report, of the last step."""
    step = alive_in(trace, Phase.STEP)

    def of(*parts: Part) -> int:
        return sum(b.bytes for b in step if b.part in parts and (b.part is Part.OPTIMIZER or b.operation == CUT))

    weights, adapters = of(Part.WEIGHTS, Part.UNQUANTIZED), of(Part.ADAPTERS)
    gradients = sum(b.bytes for b in alive_in(trace, Phase.BACKWARD) if b.part is Part.GRADIENTS)
    steps = sum(b.bytes for b in step if b.part is Part.OPTIMIZER and b.shape == "")
    return {
        "frozen": weights if adapters else 0, "trained": adapters or weights, "gradients": gradients,
        "states": of(Part.OPTIMIZER) - steps, "accumulated": most_in(trace, Part.ACCUMULATED),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("method", "gpus", "passes"),
    [("full", 2, 1), ("tied", 3, 1), ("lora", 2, 1), ("qlora", 3, 1), ("full", 2, 3), ("qlora", 2, 3)],
)
def test_the_first_part_is_that_of_the_real_one(
    dry_run: Callable[[Workload], Trace], method: str, gpus: int, passes: int
) -> None:  # fmt: skip
    first, *_ = run_sharded("fsdp", method, gpus, passes)
    assert found_in(dry_run(shared("fsdp", method, gpus, gradient_accumulation_steps=passes))) == first
