"""Several micro-batches on several GPUs: which gradients wait whole, and what sending them each time saves."""

from __future__ import annotations

from dataclasses import replace

import pytest

from peftbench.base.errors import SpecError
from peftbench.base.units import GIB
from peftbench.catalog.gpus import find_gpu
from peftbench.catalog.models import find_model
from peftbench.decide.plan.gpu_count import on_fewest
from peftbench.decide.plan.plan import make_plan
from peftbench.decide.recipe import LORA, quantization_for
from peftbench.estimate.sharding.links import traffic
from peftbench.estimate.time.step import step_time
from peftbench.estimate.training import estimate_training, trainable_parameters
from peftbench.inputs.recipe import DType, ParallelismSpec, TrainingSpec
from peftbench.memory import MemoryProfile, Part, Phase

LLAMA_8B = find_model("8b")
A100 = find_gpu("a100-80gb")
FULL, LORA_16 = TrainingSpec(), TrainingSpec(adapter=LORA)
QLORA = TrainingSpec(adapter=LORA, quantization=quantization_for(DType.BFLOAT16))


def on(training: TrainingSpec, gpus: int, strategy: str, passes: int = 4, **fields: object) -> TrainingSpec:
    parallelism = ParallelismSpec(gpus=gpus, strategy=strategy, cpu_offload=bool(fields.pop("cpu_offload", False)))
    return replace(training, parallelism=parallelism, gradient_accumulation_steps=passes, **fields)


def held(profile: MemoryProfile, part: Part, phase: Phase) -> int:
    return sum(c.bytes for c in profile.alive_in(phase) if c.part is part)


@pytest.mark.parametrize("training", [FULL, LORA_16, QLORA], ids=["full", "lora", "qlora"])
@pytest.mark.parametrize("strategy", ["fsdp", "fsdp-grad-op"])
@pytest.mark.parametrize("offload", [False, True])
def test_fsdp_keeps_whole_gradients_in_16_bit(training: TrainingSpec, strategy: str, offload: bool) -> None:
    """For what is trained alone, on each GPU however many there are; CPU offload does not move them."""
    for gpus in (2, 8):
        profile = estimate_training(LLAMA_8B, on(training, gpus, strategy, cpu_offload=offload))
        whole = 2 * trainable_parameters(LLAMA_8B, training)
        assert held(profile, Part.ACCUMULATED, Phase.FORWARD) == whole
        assert held(profile, Part.ACCUMULATED, Phase.BACKWARD) == whole
        assert not held(profile, Part.ACCUMULATED, Phase.STEP)
        assert not held(profile, Part.GRADIENTS, Phase.FORWARD)


def test_they_have_the_weights_type_without_mixed_precision() -> None:
    profile = estimate_training(LLAMA_8B, on(replace(LORA_16, autocast=False), 4, "fsdp"))
    whole = 4 * trainable_parameters(LLAMA_8B, LORA_16)  # PEFT's adapters are float32
    assert held(profile, Part.ACCUMULATED, Phase.FORWARD) == whole


def test_the_optimizer_step_has_parts_only() -> None:
    """But for what blocks are larger than their tensors."""
    steps = [
        estimate_training(LLAMA_8B, on(FULL, 4, "fsdp", passes)).allocated_in(Phase.STEP) for passes in (1, 2, 8)
    ]
    assert max(steps) - min(steps) < GIB / 64


def test_one_pass_and_synced_ones_keep_nothing_whole() -> None:
    for training in (on(FULL, 4, "fsdp", passes=1), on(FULL, 4, "fsdp", sync_each_batch=True)):
        assert not estimate_training(LLAMA_8B, training).bytes_of(Part.ACCUMULATED)


@pytest.mark.parametrize("strategy", ["ddp", "zero1", "zero2", "zero3"])
def test_other_strategies_do_not_defer(strategy: str) -> None:
    """DDP and ZeRO-1 have whole gradients anyway; DeepSpeed deals out those of every micro-batch from stage 2 on."""
    deferred, synced = (estimate_training(LLAMA_8B, on(FULL, 4, strategy, sync_each_batch=s)) for s in (False, True))
    assert deferred == synced and not deferred.bytes_of(Part.ACCUMULATED)


def test_zero2_has_its_part_twice_at_the_end_of_backward() -> None:
    """That of the micro-batches before, and that of this one, which is added in the end."""
    once, again = (estimate_training(LLAMA_8B, on(FULL, 4, "zero2", passes)) for passes in (1, 2))
    part = 2 * trainable_parameters(LLAMA_8B, FULL) // 4
    grown = again.allocated_in(Phase.BACKWARD) - once.allocated_in(Phase.BACKWARD)
    assert grown == pytest.approx(part, rel=1e-3)


def test_fsdp1_keeps_the_weights_gathered_too() -> None:
    """With SHARD_GRAD_OP it does not let go of a layer before its gradients are reduced."""
    training = on(replace(FULL, transformers="4.48"), 4, "fsdp-grad-op")
    for phase in (Phase.FORWARD, Phase.BACKWARD):
        assert held(estimate_training(LLAMA_8B, training), Part.GATHERED, phase) == 2 * 8_030_261_248


def test_the_last_pass_makes_parts_of_the_whole() -> None:
    """On one GPU the parts are the whole in float32: the backward pass ends with twice the bytes."""
    profile = estimate_training(LLAMA_8B, on(FULL, 1, "fsdp"))
    kept = held(profile, Part.GRADIENTS, Phase.BACKWARD) + held(profile, Part.ACCUMULATED, Phase.BACKWARD)
    assert kept == pytest.approx(4 * 8_030_261_248, rel=0.1)


def test_gradients_are_sent_once() -> None:
    parallel = ParallelismSpec(gpus=8, strategy="fsdp")
    each, once = (traffic(parallel, A100, 100, 0, once=once) for once in (False, True))
    assert (each.step_s, once.micro_step_s) == (0, 0) and once.step_s == each.micro_step_s > 0
    deferred, synced = (step_time(LLAMA_8B, on(FULL, 8, "fsdp", sync_each_batch=s), A100) for s in (False, True))
    assert deferred and synced and deferred.step_s < synced.step_s


def test_a_plan_says_what_sending_them_each_time_saves() -> None:
    deferred, synced = (make_plan(LLAMA_8B, on(FULL, 4, "fsdp", sync_each_batch=s), A100) for s in (False, True))
    saved = (deferred.profile.device_bytes - synced.profile.device_bytes) / GIB
    assert any(f"--sync-each-batch saves {saved:.2f} GiB" in note for note in deferred.notes)
    assert not any("--sync-each-batch" in note for note in synced.notes)


def test_no_number_of_gpus_shares_whole_gradients() -> None:
    """32B have 61 GiB of them, which is more than a card of 24 GB at any number."""
    model, card, short = find_model("qwen3-32b"), find_gpu("l4"), replace(FULL, sequence_length=512)
    with pytest.raises(SpecError) as error:
        on_fewest(model, replace(short, gradient_accumulation_steps=4), card)
    assert "--sync-each-batch" in error.value.hint
    assert on_fewest(model, replace(short, gradient_accumulation_steps=4, sync_each_batch=True), card)


def test_advice_types_it() -> None:
    plan = make_plan(LLAMA_8B, on(FULL, 4, "fsdp"), find_gpu("l40s"))
    assert any(change.arguments == ("--sync-each-batch",) for change in plan.changes)
