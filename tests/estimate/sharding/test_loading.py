"""What a GPU holds while sharded weights are loaded."""

from __future__ import annotations

from dataclasses import replace

import pytest

from peftbench.base.errors import SpecError
from peftbench.catalog.gpus import find_gpu
from peftbench.catalog.models import find_model
from peftbench.decide.choose.fit import Shape, Sharing, fastest_setup
from peftbench.decide.plan.gpu_count import smallest_count
from peftbench.decide.plan.plan import make_plan
from peftbench.decide.recipe import LORA, quantization_for
from peftbench.decide.verdict import Fit
from peftbench.estimate.parts.base_weights import weight_bytes
from peftbench.estimate.sharding.loading import loads_whole
from peftbench.estimate.training import estimate_training
from peftbench.inputs.recipe import DType, ParallelismSpec, TrainingSpec
from peftbench.memory import MemoryProfile, Part, Phase

LLAMA_8B, LLAMA_70B = find_model("8b"), find_model("70b")
LORA_16 = TrainingSpec(adapter=LORA)
NF4 = quantization_for(DType.BFLOAT16)
QLORA = TrainingSpec(adapter=LORA, quantization=NF4)
GIB = 1 << 30


def on(training: TrainingSpec, gpus: int, strategy: str, **fields: object) -> TrainingSpec:
    return replace(training, parallelism=ParallelismSpec(gpus=gpus, strategy=strategy, **fields))


def older(training: TrainingSpec) -> TrainingSpec:
    return replace(training, transformers="4.48")


def load_gib(training: TrainingSpec) -> float:
    return estimate_training(LLAMA_70B, training).allocated_in(Phase.LOAD) / GIB


def loaded_slack_bytes(profile: MemoryProfile) -> int:
    return sum(c.bytes for c in profile.components if c.part is Part.SLACK and "loading left" in c.because)


@pytest.mark.parametrize(
    ("training", "whole"),
    [
        (on(QLORA, 2, "fsdp"), True),  # bitsandbytes of transformers 5 quantizes on each GPU
        (older(on(QLORA, 2, "fsdp")), False),  # transformers 4 takes the codes back to the host
        (older(on(QLORA, 2, "fsdp", loading="whole")), True),
        (on(QLORA, 2, "fsdp", loading="sharded"), False),
        (on(LORA_16, 2, "fsdp"), False),  # read on the host
        (on(LORA_16, 2, "zero3"), False),  # zero.Init
        (on(LORA_16, 2, "zero3", loading="whole"), True),
        (on(QLORA, 2, "zero3"), True),  # zero.Init leaves quantized models out
        (on(QLORA, 2, "zero2", loading="whole"), False),  # nothing to cut
    ],
)
def test_who_holds_the_whole_model_first(training: TrainingSpec, whole: bool) -> None:
    assert loads_whole(training) is whole


def test_each_way_has_a_peak_of_its_own() -> None:
    """70B in 4 bit on four GPUs: 36.5 GiB whole, a quarter in parts; FSDP2 keeps all of it until all is cut."""
    whole = weight_bytes(LLAMA_70B, DType.BFLOAT16, NF4).total_bytes / GIB
    parts = load_gib(on(QLORA, 4, "fsdp", loading="sharded"))
    assert whole / 4 < parts < whole / 4 + 5.5  # constants, embeddings and head
    flat = older(on(QLORA, 4, "fsdp", loading="whole"))
    assert whole < load_gib(flat) < whole + 1.5 < whole * 1.2 < load_gib(on(QLORA, 4, "fsdp"))
    assert load_gib(on(QLORA, 4, "zero3")) == pytest.approx(whole + 0.386, abs=0.01)  # bfloat16 adapters


def test_a_14b_lora_runs_out_while_it_is_loaded_without_zero_init() -> None:
    """hiyouga/LLaMA-Factory#3035: zero3_init_flag false on two cards of 23.5 GiB ran out; 26.4 GiB are whole."""
    model, card = find_model("Qwen/Qwen2.5-14B"), find_gpu("rtx4090")
    training = on(replace(LORA_16, sequence_length=1024), 2, "zero3", loading="whole")
    plan = make_plan(model, training, card)
    assert plan.verdict and plan.verdict.fit is Fit.DOES_NOT_FIT and plan.profile.peak_phase is Phase.LOAD
    assert any("TrainingArguments made before from_pretrained" in note for note in plan.notes)
    assert any(change.arguments[-2:] == ("--loading", "sharded") for change in plan.changes)


def test_what_loading_leaves_is_slack_only_where_all_of_it_was_there() -> None:
    """70B on two GPUs with offload: 14.9 GiB reserved were measured, a whole model is 16 GiB more of slack."""
    model = find_model("llama-2-70b")
    training = replace(on(QLORA, 2, "fsdp", cpu_offload=True), micro_batch_size=2, use_reentrant=True)
    in_parts = estimate_training(model, older(training))
    assert in_parts.reserved_bytes < 19 * GIB and not loaded_slack_bytes(in_parts)
    whole = older(replace(training, parallelism=replace(training.parallelism, loading="whole")))
    assert loaded_slack_bytes(estimate_training(model, whole)) > 15 * GIB
    assert not loaded_slack_bytes(estimate_training(LLAMA_70B, on(QLORA, 2, "zero3")))  # DeepSpeed empties the cache


def test_the_peak_is_the_phase_that_needs_most_of_the_device() -> None:
    """Slack comes with training: a phase with fewer tensors can need more than loading."""
    profile = estimate_training(LLAMA_8B, older(on(QLORA, 2, "fsdp", loading="whole")))
    assert profile.peak_phase is max(profile.phases, key=profile.device_in)
    assert profile.allocated_bytes == max(map(profile.allocated_in, profile.phases))


def test_quantized_models_cannot_be_loaded_in_parts_under_zero3() -> None:
    with pytest.raises(SpecError, match=r"zero\.Init leaves them out"):
        estimate_training(LLAMA_8B, on(QLORA, 2, "zero3", loading="sharded"))


def test_counts_and_rankings_load_in_parts_where_the_whole_is_too_much() -> None:
    card = find_gpu("rtx4090")
    found = smallest_count(LLAMA_70B, QLORA, card)
    assert found and found.loading == "sharded"
    setup = fastest_setup(LLAMA_70B, QLORA, Shape(card, 2, 1), 8, "transformers", Sharing("fsdp", cpu_offload=True))
    assert setup and setup.training.parallelism.loading == "sharded"
    small = smallest_count(LLAMA_8B, QLORA, find_gpu("a100-80gb"))
    assert small and small.loading is None
