"""A dry run of FSDP2: what each GPU keeps, gathers and reduces."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")
pytest.importorskip("bitsandbytes")

from dryruns.several_gpus import bytes_in, most_in, shared
from oracle.sharded_run import CONFIG

from peftbench.dryrun.trace.trace import Trace
from peftbench.dryrun.workload import Workload
from peftbench.inputs.model.config_json import read_config
from peftbench.inputs.model.weights import num_parameters, weights_of
from peftbench.memory import Part, Phase

Run = Callable[[Workload], Trace]
MODEL = read_config(CONFIG, "tiny", "test")
LAYER = sum(weight.numel for weight in weights_of(MODEL) if weight.layers)
TABLE = CONFIG["vocab_size"] * CONFIG["hidden_size"]


def part_of(gpus: int) -> int:
    """Elements of the first GPU's rows of every weight."""
    return sum(w.count * -(-w.shape[0] // gpus) * (w.numel // w.shape[0]) for w in weights_of(MODEL))


def test_each_gpu_keeps_its_rows_of_weights_gradients_and_states(dry_run: Run) -> None:
    step = bytes_in(dry_run(shared("fsdp", "full", 3)), Phase.STEP)
    assert step[Part.OPTIMIZER] >= 8 * part_of(3)
    before = bytes_in(dry_run(shared("fsdp", "full", 3)), Phase.BACKWARD)
    assert before[Part.GRADIENTS] == 4 * part_of(3), "float32, the type of the parts"
    assert before[Part.GATHERED] == before[Part.BUCKETS] == 0


def test_a_unit_is_gathered_in_the_type_that_it_computes_in(dry_run: Run) -> None:
    """The head's stays while layers come and go: each twice, as the buffer and as the weights."""
    trace = dry_run(shared("fsdp", "full", 3))
    padded = 3 * part_of(3) / num_parameters(MODEL)
    assert 2 * (TABLE + LAYER) < most_in(trace, Part.GATHERED) < 2 * padded * (2 * TABLE + 3 * LAYER)


def test_gathering_and_reducing_have_streams_of_their_own(dry_run: Run) -> None:
    trace = dry_run(shared("fsdp", "full", 3))
    streams = {part: {b.stream for b in trace.blocks if b.part is part} for part in Part}
    assert len(streams[Part.GATHERED]) == 2 and 0 in streams[Part.GATHERED], "buffers, and the weights themselves"
    assert streams[Part.GRADIENTS] - {0}, "parts of gradients come out of the reduction"
    assert streams[Part.ACTIVATIONS] == streams[Part.WEIGHTS] == {0}


def test_gradients_are_whole_until_the_last_micro_batch(dry_run: Run) -> None:
    deferred = dry_run(shared("fsdp", "full", 3, gradient_accumulation_steps=4))
    assert most_in(deferred, Part.ACCUMULATED) == 2 * num_parameters(MODEL), "in bfloat16"
    synced = dry_run(shared("fsdp", "full", 3, gradient_accumulation_steps=4, sync_each_batch=True))
    assert most_in(synced, Part.ACCUMULATED) == 0


@pytest.mark.parametrize(
    ("method", "gpus"), [("tied", 3), ("qlora", 3), pytest.param("lora", 1024, marks=pytest.mark.slow)]
)
def test_other_methods_are_cut_too(dry_run: Run, method: str, gpus: int) -> None:
    """Constants of quantized weights are no parameters, and stay whole."""
    step = bytes_in(dry_run(shared("fsdp", method, gpus)), Phase.STEP)
    kept = step[Part.WEIGHTS] + step[Part.UNQUANTIZED] + step[Part.ADAPTERS]
    assert 0 < kept < 4 * num_parameters(MODEL) / min(gpus, 16)
    assert bool(step[Part.QUANTIZATION_CONSTANTS]) is (method == "qlora")


def test_offloaded_parts_are_not_on_the_card(dry_run: Run) -> None:
    step = bytes_in(dry_run(shared("fsdp", "full", 3, cpu_offload=True)), Phase.STEP)
    assert not step[Part.WEIGHTS] and not step[Part.OPTIMIZER] and not step[Part.GRADIENTS]


def test_weights_stay_gathered_where_only_gradients_are_cut(dry_run: Run) -> None:
    whole, layerwise = (most_in(dry_run(shared(s, "full", 3)), Part.GATHERED) for s in ("fsdp-grad-op", "fsdp"))
    assert whole >= 2 * num_parameters(MODEL)
    assert layerwise < whole
