"""What a replay of a recipe's own blocks says of the allocator; the grid of tests/oracles compares it with dry runs."""

from dataclasses import replace

import pytest

from peftbench.base.units import MIB
from peftbench.catalog.gpus import find_gpu
from peftbench.catalog.models import find_model
from peftbench.estimate.parts.card import traits_of
from peftbench.estimate.replay.step import ALIKE, Batches
from peftbench.estimate.training import estimate_training, reserved_components
from peftbench.inputs.recipe import AdapterSpec, DType, TrainingSpec
from peftbench.memory import MemoryProfile, Part

MODEL = find_model("HuggingFaceTB/SmolLM2-135M")
GPU = find_gpu("a100-80gb")
LORA = TrainingSpec(adapter=AdapterSpec(target_modules=("all-linear",)), sequence_length=512, micro_batch_size=2)


def reserved(training: TrainingSpec, batches: Batches = ALIKE) -> int:
    return estimate_training(MODEL, training, GPU, batches).reserved_bytes


def test_a_shorter_batch_before_leaves_blocks_that_the_longer_one_does_not_fit():
    assert reserved(LORA, Batches((400, 512))) > reserved(LORA)


def test_an_emptied_cache_keeps_less_than_a_full_one():
    assert reserved(LORA, Batches((400, 512), empty_cache_steps=1)) < reserved(LORA, Batches((400, 512)))


def test_the_first_of_two_equal_steps_does_not_show_all():
    """The optimizer's states come at its end, and lie where activations were."""
    full = TrainingSpec(sequence_length=512, micro_batch_size=4)
    assert reserved(full) > reserved(full, Batches((512,)))


def test_more_than_two_micro_batches_need_what_two_do():
    assert reserved(replace(LORA, gradient_accumulation_steps=2)) == reserved(
        replace(LORA, gradient_accumulation_steps=8)
    )


@pytest.mark.parametrize("loop", ["trainer", "plain"])
def test_steps_after_the_second_reserve_no_more(loop: str):
    training = replace(LORA, loop=loop)
    assert reserved(training, Batches((512,) * 5)) == reserved(training)


def test_without_a_replay_the_tensors_are_the_same():
    quick = MemoryProfile(reserved_components(MODEL, LORA, traits_of(GPU), None))
    whole = estimate_training(MODEL, LORA, GPU)
    assert quick.bytes_of(Part.SLACK) == 0
    assert quick.bytes_of(Part.LOGITS) == whole.bytes_of(Part.LOGITS)


@pytest.mark.parametrize(
    ("model", "attention", "length", "batch", "measured_mib"),
    [
        ("Qwen/Qwen2.5-1.5B", "eager", 2048, 1, 8122),
        ("Qwen/Qwen2.5-1.5B", "eager", 1024, 2, 7910),
        ("HuggingFaceTB/SmolLM2-1.7B", "sdpa", 2048, 1, 5398),
        ("HuggingFaceTB/SmolLM2-1.7B", "eager", 1024, 4, 7734),
        ("HuggingFaceTB/SmolLM2-135M", "eager", 512, 2, 1104),
        ("TinyLlama/TinyLlama-1.1B-Chat-v1.0", "eager", 1024, 2, 4226),
        ("TinyLlama/TinyLlama-1.1B-Chat-v1.0", "eager", 512, 2, 2908),
    ],
)
def test_what_is_moved_from_the_cpu_has_no_warm_up(
    model: str, attention: str, length: int, batch: int, measured_mib: int
):
    """Source: fitcheck-llm 0.3.1 on PyPI: its scripts/measure.py steps in a function, after cuda()."""
    training = TrainingSpec(
        adapter=AdapterSpec(r=32, target_modules=("q_proj", "k_proj", "v_proj", "o_proj")), dtype=DType.FLOAT16,
        autocast=False, loop="function", device_map="none", attention=attention, sequence_length=length,
        micro_batch_size=batch,
    )  # fmt: skip
    expected = estimate_training(find_model(model), training, find_gpu("t4")).reserved_bytes
    assert expected == pytest.approx(measured_mib * MIB, rel=0.012)
