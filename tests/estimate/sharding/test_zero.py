"""DeepSpeed: buckets, float32 copies, offload, and the temporaries of its step."""

from __future__ import annotations

from dataclasses import replace

import pytest

from peftbench.catalog.gpus import find_gpu
from peftbench.catalog.models import find_model
from peftbench.decide.recipe import LORA
from peftbench.decide.verdict import Fit, judge
from peftbench.estimate.training import estimate_training
from peftbench.inputs.recipe import DType, ParallelismSpec, TrainingSpec
from peftbench.memory import MemoryProfile, Part, Phase

LLAMA_8B, QWEN_32B = find_model("8b"), find_model("Qwen/Qwen2.5-32B")
FULL, LORA_16 = TrainingSpec(), TrainingSpec(adapter=LORA)
PARAMETERS = 8_030_261_248
MIB = 1 << 20


def on(training: TrainingSpec, strategy: str, gpus: int = 8, **fields: object) -> TrainingSpec:
    return replace(training, parallelism=ParallelismSpec(gpus=gpus, strategy=strategy, **fields))


def held(training: TrainingSpec, part: Part, phase: Phase, because: str = "") -> int:
    alive = estimate_training(LLAMA_8B, training).alive_in(phase)
    return sum(c.bytes for c in alive if c.part is part and because in c.because)


@pytest.mark.parametrize("strategy", ["zero1", "zero2", "zero3"])
def test_an_auto_bucket_is_the_hidden_size_squared(strategy: str) -> None:
    """4096² elements of bfloat16 are 32 MiB; half a billion, DeepSpeed's own, 0.93 GiB."""
    bucket = "reduce_bucket_size"
    assert held(on(FULL, strategy), Part.BUCKETS, Phase.BACKWARD, bucket) == 32 * MIB
    larger = on(FULL, strategy, reduce_bucket_size=500_000_000)
    assert held(larger, Part.BUCKETS, Phase.BACKWARD, bucket) == 1_000_000_000
    throughout = strategy == "zero3"
    assert bool(held(larger, Part.BUCKETS, Phase.LOAD)) is bool(held(larger, Part.BUCKETS, Phase.STEP)) is throughout


def test_overlap_fills_a_second_bucket_in_stages_1_and_2() -> None:
    for strategy, times in (("zero1", 2), ("zero2", 2), ("zero3", 1)):
        sizes = [
            held(on(FULL, strategy, overlap_comm=overlap), Part.BUCKETS, Phase.BACKWARD, "reduce_bucket_size")
            for overlap in (False, True)
        ]
        assert sizes[1] == times * sizes[0]


def test_what_is_reduced_is_flattened_once_more() -> None:
    """As much as the bucket holds; a parameter beyond it only where the GPUs cannot cut it evenly."""
    def flattened(*fields: object, **more: object) -> int:
        return held(on(*fields, **more), Part.BUCKETS, Phase.BACKWARD, "flattened")

    assert flattened(LORA_16, "zero2", reduce_bucket_size=500_000_000) == 2 * 41_943_040
    assert flattened(FULL, "zero2") == 2 * 4096**2
    largest = 2 * 128_256 * 4096
    assert flattened(FULL, "zero3") == 2 * 4096**2 < flattened(FULL, "zero3", gpus=7) == largest


@pytest.mark.parametrize("strategy", ["zero1", "zero2", "zero3"])
def test_float32_copies_are_there_before_the_first_step(strategy: str) -> None:
    copies = held(on(FULL, strategy), Part.OPTIMIZER, Phase.LOAD)
    assert 8 * copies == pytest.approx(4 * PARAMETERS, rel=1e-3)
    assert 8 * held(on(FULL, strategy), Part.OPTIMIZER, Phase.FORWARD) == pytest.approx(12 * PARAMETERS, rel=1e-3)


def test_stage_3_updates_float32_weights_themselves() -> None:
    plain = replace(FULL, dtype=DType.FLOAT32, autocast=False)
    assert not held(on(plain, "zero3"), Part.OPTIMIZER, Phase.LOAD)
    assert held(on(plain, "zero2"), Part.OPTIMIZER, Phase.LOAD)


def test_offload_of_the_optimizer_alone_leaves_the_weights() -> None:
    both, alone, none = (
        on(FULL, "zero3", **fields)
        for fields in ({"cpu_offload": True}, {"cpu_offload": True, "offload_params": False}, {})
    )
    assert held(alone, Part.WEIGHTS, Phase.STEP) == held(none, Part.WEIGHTS, Phase.STEP)
    assert held(both, Part.WEIGHTS, Phase.STEP) < held(alone, Part.WEIGHTS, Phase.STEP) // 100
    assert not held(alone, Part.OPTIMIZER, Phase.STEP) and not held(alone, Part.GRADIENTS, Phase.STEP)


def test_offload_of_stage_2_has_the_largest_gradient_on_the_gpu() -> None:
    """In its own type throughout, and in float64 for its norm."""
    training, largest = on(FULL, "zero2", cpu_offload=True), 128_256 * 4096
    assert held(training, Part.BUCKETS, Phase.STEP) == 2 * largest
    assert held(training, Part.BUCKETS, Phase.BACKWARD, "float64") == 8 * largest


def test_gradients_are_flattened_and_cast_before_the_optimizer_runs() -> None:
    """Two bytes of the flat copy and four of the cast one for each element; foreach has four and four."""
    own = PARAMETERS // 8
    for optimizer, each in (("adamw_torch_fused", 6), ("adamw_torch", 6)):
        training = on(replace(FULL, optimizer=optimizer), "zero2")
        assert held(training, Part.OPTIMIZER_TEMPORARIES, Phase.STEP) == pytest.approx(each * own, rel=1e-3)
    for optimizer, each in (("adamw_torch_fused", 6), ("adamw_torch", 8)):  # stage 3 keeps its gradients meanwhile
        training = on(replace(FULL, optimizer=optimizer), "zero3", gpus=8)
        assert held(training, Part.OPTIMIZER_TEMPORARIES, Phase.STEP) == each * 10**9


def test_the_norm_of_a_large_gradient_is_taken_in_float64() -> None:
    """On 64 GPUs the embeddings are more than one of the parts."""
    temporaries = held(on(FULL, "zero2", gpus=64), Part.OPTIMIZER_TEMPORARIES, Phase.STEP)
    assert temporaries == pytest.approx(8 * PARAMETERS / 64, rel=1e-3)


def test_stage_3_fetches_until_a_billion_elements_are_there_and_one_parameter_more() -> None:
    """The head at the end of the forward pass, a matrix of a layer in the backward pass."""
    head, matrix = 2 * (128_256 * 4096 + 4096), 2 * 14_336 * 4096
    training = replace(on(LORA_16, "zero3"), sequence_length=16)
    assert held(training, Part.GATHERED, Phase.FORWARD) == pytest.approx(2 * 10**9 + head, rel=1e-2)
    assert held(training, Part.GATHERED, Phase.BACKWARD) == pytest.approx(2 * 10**9 + matrix, rel=1e-2)


def test_limits_of_stage_3_are_asked_for() -> None:
    few, head = on(LORA_16, "zero3", max_live_parameters=10**8), 2 * (128_256 * 4096 + 4096)
    assert held(replace(few, sequence_length=16), Part.GATHERED, Phase.BACKWARD) == head
    training = replace(on(FULL, "zero3"), sequence_length=16)
    less = replace(training, parallelism=replace(training.parallelism, sub_group_size=10**8))
    assert held(less, Part.OPTIMIZER_TEMPORARIES, Phase.STEP) == 6 * 10**8
    all_at_once = replace(training, parallelism=replace(training.parallelism, sub_group_size=10**14))
    assert held(all_at_once, Part.OPTIMIZER_TEMPORARIES, Phase.STEP) == pytest.approx(6 * PARAMETERS / 8, rel=1e-3)


def test_stage_2_makes_room_for_its_part_with_the_first_gradient() -> None:
    """Seen where the peak is at the head, whose gradient is the first, with the logits still there."""
    training = replace(on(FULL, "zero2"), sequence_length=2048, loss="liger")
    head = 2 * (128_256 * 4096 + 4096)
    assert held(training, Part.GRADIENTS, Phase.BACKWARD) == pytest.approx(head + PARAMETERS // 4, rel=1e-3)


@pytest.mark.parametrize(("gpus", "length"), [(7, 1024), (8, 1024)])
def test_32b_in_full_on_80_gb_cards_is_not_promised(gpus: int, length: int) -> None:
    """Reported out of memory with LLaMA-Factory on seven and on eight."""
    training = replace(on(FULL, "zero3", gpus=gpus), sequence_length=length, optimizer="adamw_torch")
    card = find_gpu("a100-80gb")
    profile: MemoryProfile = estimate_training(QWEN_32B, training, card)
    assert judge(profile, card).fit is not Fit.FITS
