"""What several GPUs reserve beyond tensors, what they refuse, and what their hosts keep."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle.several_recipes import estimate_of

from peftbench.base.units import MIB
from peftbench.catalog.gpus import find_gpu
from peftbench.catalog.models import find_model
from peftbench.decide.plan.plan import make_plan
from peftbench.decide.recipe import LORA, quantization_for
from peftbench.decide.verdict import Fit
from peftbench.estimate.forward.moments import Stretch
from peftbench.estimate.sharding.reserved import nccl, stream_slack
from peftbench.estimate.sharding.split import PERSISTENT
from peftbench.estimate.sharding.step import _gathered_bytes
from peftbench.estimate.sharding.units import units_of
from peftbench.estimate.training import estimate_training, host_bytes
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.recipe import DType, ParallelismSpec, TrainingSpec
from peftbench.memory import MemoryProfile, Part, Phase

LLAMA_8B, LLAMA_70B = find_model("8b"), find_model("70b")
SMALL = find_model("Qwen/Qwen2.5-0.5B")
A100, RTX_4090 = find_gpu("a100-80gb"), find_gpu("rtx4090")
FOREACH, LORA_16 = TrainingSpec(optimizer="adamw_torch"), TrainingSpec(adapter=LORA)
QLORA = TrainingSpec(adapter=LORA, quantization=quantization_for(DType.BFLOAT16))
STATIC = (Part.WEIGHTS, Part.QUANTIZATION_CONSTANTS, Part.UNQUANTIZED, Part.ADAPTERS, Part.OPTIMIZER, Part.GRADIENTS)
ALWAYS = frozenset(Phase)
DRY_RUNS = (
    ("fsdp", "full", 4, {}, 10_112),
    ("fsdp", "full", 2, {"gradient_checkpointing": False}, 18_160),
    ("fsdp", "full", 8, {"gradient_accumulation_steps": 4, "sync_each_batch": True}, 7_910),
    ("fsdp", "full", 4, {"cpu_offload": True}, 5_874),
    ("fsdp", "full", 16, {"optimizer": "adamw_torch", "sequence_length": 4096}, 9_626),
    ("fsdp-grad-op", "full", 4, {}, 11_516),
    ("fsdp", "lora", 2, {"cpu_offload": True, "micro_batch_size": 4}, 16_762),
    ("fsdp", "qlora", 4, {"gradient_checkpointing": False, "gradient_accumulation_steps": 4}, 8_146),
    ("ddp", "full", 2, {}, 13_814),
    ("ddp", "full", 4, {"gradient_checkpointing": False}, 16_512),
    ("ddp", "lora", 2, {}, 6_872),
)
"""MiB that dry runs of Llama-3.2-1B reserved, of torch 2.13: tests/benchmarks/several_gpus.py runs them again."""


def on(training: TrainingSpec, gpus: int, strategy: str, **fields: object) -> TrainingSpec:
    return replace(training, parallelism=ParallelismSpec(gpus=gpus, strategy=strategy, **fields))


def static_bytes(profile: MemoryProfile) -> int:
    """What the step itself needs, without what small parameters that stay whole add."""
    return sum(c.bytes for c in profile.alive_in(Phase.STEP) if c.part in STATIC and c.because != PERSISTENT)


# ── streams and connections ─────────────────────────────────────────────────────────────────────────────────────────


def test_connections_follow_the_link_and_the_neighbours() -> None:
    def size(gpus: int, card: object, **fields: object) -> int:
        return sum(c.bytes for c in nccl(ParallelismSpec(gpus=gpus, strategy="ddp", **fields), card, ALWAYS))

    assert size(1, A100) == 0
    assert size(2, A100) * 3 == size(3, A100) * 2 == size(8, A100) * 2
    assert size(2, RTX_4090) < size(2, A100) == size(2, RTX_4090, link="nvlink")


@pytest.mark.parametrize(
    ("model", "training", "named"),
    [
        (SMALL, on(LORA_16, 2, "ddp"), False), (SMALL, on(LORA_16, 3, "ddp"), True),
        (SMALL, on(LORA_16, 8, "ddp"), True), (LLAMA_8B, on(LORA_16, 3, "ddp"), False),
        (LLAMA_8B, on(LORA_16, 3, "fsdp"), False),
    ],
)  # fmt: skip
def test_a_plan_says_why_three_need_more_than_two(model: ModelSpec, training: TrainingSpec, named: bool) -> None:
    """Where it is a twentieth of the whole: shards of a larger model are smaller on three."""
    notes = make_plan(model, training, A100, with_changes=False).notes
    assert any("two neighbours" in note for note in notes) is named


def test_a_training_step_has_no_phases_of_generation() -> None:
    for training in (TrainingSpec(), LORA_16):
        components = estimate_training(SMALL, on(training, 2, "ddp"), A100).components
        assert not any(c.phases & {Phase.PREFILL, Phase.DECODE} for c in components)


def test_units_that_are_replayed_have_no_slack_of_their_own() -> None:
    training = on(TrainingSpec(), 4, "fsdp")
    components = estimate_training(LLAMA_8B, training).components
    assert not stream_slack(components, LLAMA_8B, training)
    assert sum(c.part is Part.SLACK for c in components) == 1


@pytest.mark.parametrize(("strategy", "method", "gpus", "given", "reserved_mib"), DRY_RUNS)
def test_what_is_reserved_is_what_a_dry_run_reserves(
    strategy: str, method: str, gpus: int, given: dict[str, object], reserved_mib: int
) -> None:
    recipe = ("llama-3.2-1b", strategy, method, gpus, given)
    _, _, estimated = estimate_of(recipe)
    assert estimated.reserved_bytes / MIB == pytest.approx(reserved_mib, rel=0.01)


def test_what_deepspeed_may_reserve_is_the_upper_end_of_the_band() -> None:
    """Flat gradients of a step are larger than any block that the backward pass left."""
    training = on(TrainingSpec(), 4, "zero3")
    (slack,) = stream_slack(estimate_training(LLAMA_8B, training).components, LLAMA_8B, training)
    assert slack.bytes == slack.low_bytes == 0 < slack.high_bytes


def test_flat_parameters_reserve_more() -> None:
    newer, older = (on(replace(FOREACH, transformers=t, loss="fused"), 4, "fsdp") for t in ("5", "4.48"))
    sizes = [
        sum(c.bytes for c in stream_slack(estimate_training(LLAMA_8B, t, A100).components, LLAMA_8B, t))
        for t in (newer, older)
    ]
    assert sizes[0] < sizes[1]


# ── properties ──────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.sampled_from((TrainingSpec(), LORA_16, QLORA)), st.integers(2, 64))
def test_a_higher_stage_of_zero_keeps_no_more(training: TrainingSpec, gpus: int) -> None:
    """Of the step's own tensors; ZeRO keeps float32 copies that plain data parallelism has only for full training."""
    zero1, zero2, zero3 = (
        static_bytes(estimate_training(SMALL, on(training, gpus, s))) for s in ("zero1", "zero2", "zero3")
    )
    padding = 16 * 400 * gpus
    assert zero3 <= zero2 + padding and zero2 <= zero1


@given(
    st.sampled_from((TrainingSpec(), LORA_16, QLORA)),
    st.sampled_from(("ddp", "zero1", "zero2", "zero3", "fsdp", "fsdp-grad-op")),
    st.integers(1, 64), st.booleans(), st.sampled_from(("5", "4.48")),
)  # fmt: skip
def test_no_component_is_negative_and_the_phases_add_up(
    training: TrainingSpec, strategy: str, gpus: int, offload: bool, transformers: str
) -> None:
    offload = offload and strategy != "ddp"
    profile = estimate_training(
        SMALL, on(replace(training, transformers=transformers), gpus, strategy, cpu_offload=offload), A100
    )
    assert all(0 <= c.low_bytes <= c.bytes <= c.high_bytes for c in profile.components)
    assert profile.device_bytes == sum(c.bytes for c in profile.peak)


def test_grad_op_lets_go_of_layers_as_backward_goes() -> None:
    """All of the model at first, in the end what is outside the layers."""
    training = replace(on(TrainingSpec(), 8, "fsdp-grad-op"), transformers="4.48")
    units = units_of(LLAMA_8B, training, 0)
    whole, half, end = (
        _gathered_bytes(Stretch("layer", True, above, ()), units, LLAMA_8B, training) for above in (0, 16, 32)
    )
    assert whole == units.whole == 2 * 8_030_261_248
    assert (whole - half, end) == (16 * units.layer, units.embedding + units.head)


def test_small_adapters_stay_whole_under_zero3() -> None:
    """Both matrices of rank 2 are below stage3_param_persistence_threshold, all but two of rank 32 above."""
    for rank, whole in ((2, True), (32, False)):
        training = on(TrainingSpec(adapter=replace(LORA, r=rank)), 8, "zero3")
        kept = [c for c in estimate_training(LLAMA_8B, training).components if c.part is Part.ADAPTERS]
        assert any(c.because == PERSISTENT for c in kept)
        persistent = sum(c.bytes for c in kept if c.because == PERSISTENT)
        part = sum(c.bytes for c in kept if c.because != PERSISTENT)
        assert (persistent == pytest.approx(8 * part, rel=1e-3)) is whole


# ── the host ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("strategy", "each"), [("zero1", 14), ("zero2", 14), ("zero3", 16), ("fsdp", 16)])
def test_offload_moves_what_would_be_sharded(strategy: str, each: int) -> None:
    moved = host_bytes(LLAMA_8B, on(TrainingSpec(), 8, strategy, cpu_offload=True))
    assert 8 * moved == pytest.approx(each * 8_030_261_248, rel=2e-3)


def test_a_plan_says_what_a_node_must_hold() -> None:
    plan = make_plan(LLAMA_8B, on(TrainingSpec(), 16, "fsdp", nodes=2, cpu_offload=True), A100)
    assert "59.83 GiB in the host's memory, 7.48 GiB for each GPU" in " ".join(plan.notes)


def test_advice_for_sharded_recipes_can_run_sharded() -> None:
    """70B in full on eight cards: the host may take what is sharded, bitsandbytes' optimizers may not."""
    plan = make_plan(LLAMA_70B, on(TrainingSpec(), 8, "fsdp"), A100)
    offload = next(change for change in plan.changes if change.option == "--cpu-offload")
    assert offload.fit is Fit.FITS and offload.arguments == ("--cpu-offload",)
    assert not any("adamw" in word for change in plan.changes for word in change.arguments)


def test_a_recipe_of_one_card_is_not_told_to_offload() -> None:
    plan = make_plan(LLAMA_70B, TrainingSpec(), A100)
    assert not any("--cpu-offload" in change.arguments for change in plan.changes)


def test_a_recipe_that_cannot_be_shared_is_planned_without_a_count() -> None:
    """bitsandbytes' optimizers run on one card, where this does not fit, and not under FSDP2."""
    plan = make_plan(LLAMA_70B, TrainingSpec(optimizer="adamw_bnb_8bit"), A100)
    assert plan.verdict and plan.verdict.fit is Fit.DOES_NOT_FIT
    assert not any("--gpus" in note for note in plan.notes)
