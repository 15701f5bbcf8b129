"""Several GPUs: what is dealt out, what stays whole, and what comes on top."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftbench.base.codec import from_json
from peftbench.base.errors import SpecError
from peftbench.catalog.gpus import find_gpu
from peftbench.catalog.models import find_model
from peftbench.decide.plan.gpu_count import COUNTS, smallest_count
from peftbench.decide.plan.plan import make_plan
from peftbench.decide.recipe import LORA, quantization_for
from peftbench.decide.verdict import Fit, judge
from peftbench.estimate.inference import estimate_inference
from peftbench.estimate.training import estimate_training
from peftbench.inputs.recipe import DType, InferenceSpec, ParallelismSpec, TrainingSpec
from peftbench.inputs.recipe.parallelism import STRATEGIES
from peftbench.memory import MemoryProfile, Part, Phase

LLAMA_8B, LLAMA_70B, LLAMA_405B = find_model("8b"), find_model("70b"), find_model("405b")
SMALL = find_model("Qwen/Qwen2.5-0.5B")
A100 = find_gpu("a100-80gb")
FULL = TrainingSpec()
LORA_16 = TrainingSpec(adapter=LORA)
QLORA = TrainingSpec(adapter=LORA, quantization=quantization_for(DType.BFLOAT16))
SHARDING = ("zero1", "zero2", "zero3", "fsdp", "fsdp-grad-op")


def on(training: TrainingSpec, gpus: int, strategy: str, **fields: object) -> TrainingSpec:
    return replace(training, parallelism=ParallelismSpec(gpus=gpus, strategy=strategy, **fields))


def profile_of(training: TrainingSpec) -> MemoryProfile:
    return estimate_training(LLAMA_8B, training, A100)


def total(profile: MemoryProfile, part: Part, phase: Phase = Phase.STEP) -> int:
    return sum(c.bytes for c in profile.alive_in(phase) if c.part is part)


@pytest.mark.parametrize("strategy", [*SHARDING, "ddp"])
@pytest.mark.parametrize("training", [FULL, LORA_16], ids=["full", "lora"])
def test_sharded_states_are_an_equal_part_and_others_are_whole(strategy: str, training: TrainingSpec) -> None:
    two, four = (total(profile_of(on(training, n, strategy)), Part.OPTIMIZER) for n in (2, 4))
    if strategy == "ddp":
        assert two == four == total(profile_of(training), Part.OPTIMIZER)
    else:
        assert two == pytest.approx(2 * four, rel=1e-3)


def test_a_parameter_trained_with_fsdp_and_mixed_precision_takes_16_bytes() -> None:
    """Weights, gradients and two states in float32, over eight GPUs."""
    profile = profile_of(on(FULL, 8, "fsdp"))
    parts = (Part.WEIGHTS, Part.GRADIENTS, Part.OPTIMIZER)
    assert sum(total(profile, part) for part in parts) == pytest.approx(16 * 8_030_261_248 / 8, rel=1e-3)


def test_stages_of_zero_keep_what_their_names_say() -> None:
    """Bytes a parameter: 2 + 2 + 12/n, 2 + 2/n + 12/n, and 2/n + 2/n + 12/n (ZeRO, arXiv 1910.02054, figure 1)."""
    numel, parts = 8_030_261_248, (Part.WEIGHTS, Part.GRADIENTS, Part.OPTIMIZER)
    for strategy, each in (("zero1", 4 + 12 / 8), ("zero2", 2 + 14 / 8), ("zero3", 16 / 8)):
        profile = profile_of(on(FULL, 8, strategy))
        assert sum(total(profile, part) for part in parts) == pytest.approx(each * numel, rel=2e-3)


def test_ddp_doubles_the_gradients_only() -> None:
    alone, both = profile_of(FULL), profile_of(on(FULL, 2, "ddp"))
    assert total(both, Part.BUCKETS) == total(both, Part.GRADIENTS) == total(alone, Part.GRADIENTS)
    assert both.allocated_in(Phase.STEP) - alone.allocated_in(Phase.STEP) == total(both, Part.BUCKETS)


def test_constants_of_quantized_weights_are_on_every_gpu() -> None:
    alone, both = profile_of(QLORA), profile_of(on(QLORA, 2, "fsdp"))
    assert total(both, Part.QUANTIZATION_CONSTANTS) == total(alone, Part.QUANTIZATION_CONSTANTS)
    assert total(both, Part.WEIGHTS) == pytest.approx(total(alone, Part.WEIGHTS) / 2, rel=1e-3)


def test_grad_op_keeps_the_whole_model_from_forward_to_backward() -> None:
    profile = profile_of(on(LORA_16, 8, "fsdp-grad-op"))
    for phase in (Phase.FORWARD, Phase.BACKWARD):
        assert total(profile, Part.GATHERED, phase) >= total(profile_of(LORA_16), Part.WEIGHTS, phase)
    assert not total(profile, Part.GATHERED, Phase.STEP)


@pytest.mark.parametrize("strategy", ["fsdp", "zero3"])
def test_offload_leaves_what_is_gathered_and_computed(strategy: str) -> None:
    profile = profile_of(on(FULL, 8, strategy, cpu_offload=True))
    assert not total(profile, Part.OPTIMIZER) and not total(profile, Part.GRADIENTS)
    assert total(profile, Part.GATHERED, Phase.BACKWARD)
    assert profile.allocated_bytes < profile_of(on(FULL, 8, strategy)).allocated_bytes


def test_logits_are_whole_on_every_gpu() -> None:
    alone, many = profile_of(LORA_16), profile_of(on(LORA_16, 8, "fsdp"))
    assert total(alone, Part.LOGITS, Phase.FORWARD) == total(many, Part.LOGITS, Phase.FORWARD) > 0


@given(
    st.sampled_from((FULL, LORA_16, QLORA)), st.sampled_from(SHARDING), st.integers(2, 32), st.integers(1, 4),
    st.booleans(),
)  # fmt: skip
def test_more_gpus_never_need_more(training: TrainingSpec, strategy: str, gpus: int, more: int, keeps: bool) -> None:
    training = replace(training, zero_grad_keeps=keeps)
    few, many = (estimate_training(SMALL, on(training, n, strategy)) for n in (gpus, gpus * (more + 1)))
    padding = 3 * 16 * 300 * 4096  # a row of each tensor of the model at most, in every copy
    padding += 2 * SMALL.vocab_size * SMALL.hidden_size  # ZeRO-3 copies the largest where it cannot be cut evenly
    assert many.allocated_bytes <= few.allocated_bytes + padding


@given(st.integers(1, 8), st.integers(1, 8), st.sampled_from(STRATEGIES), st.booleans())
def test_a_parallelism_survives_json_or_is_refused(gpus: int, nodes: int, strategy: str, offload: bool) -> None:
    try:
        parallelism = ParallelismSpec(gpus=gpus, nodes=nodes, strategy=strategy, cpu_offload=offload)
        training = replace(FULL, parallelism=parallelism)
    except SpecError as error:
        assert error.what
        return
    assert from_json(TrainingSpec, asdict(training), "training") == training


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"gpus": 0}, "at least 1"),
        ({"gpus": 3, "nodes": 2, "strategy": "ddp"}, "evenly"),
        ({"gpus": 2}, "need a strategy"),
        ({"gpus": 2, "strategy": "fdsp"}, "fsdp"),
        ({"gpus": 2, "strategy": "ddp", "cpu_offload": True}, "offload"),
        ({"gpus": 2, "strategy": "tensor", "cpu_offload": True}, "every part on its GPU"),
        ({"gpus": 1, "nodes": 2}, "1 GPU cannot"),
        ({"gpus": 2, "strategy": "ddp", "link": "pci"}, "pcie"),
        ({"gpus": 10**9, "strategy": "ddp"}, "at most"),
    ],
)
def test_what_cannot_be_is_refused(fields: dict[str, object], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        ParallelismSpec(**fields)


def test_a_spec_from_json_says_which_field_is_wrong() -> None:
    with pytest.raises(SpecError, match="gpus"):
        from_json(InferenceSpec, {"parallelism": {"gpus": "two"}}, "inference")


@pytest.mark.parametrize(("model", "training"), [(LLAMA_70B, FULL), (LLAMA_405B, LORA_16)], ids=["70b", "405b"])
def test_the_smallest_count_fits_and_one_step_less_does_not(model: object, training: TrainingSpec) -> None:
    found = smallest_count(model, training, A100)
    assert found is not None and found.gpus > 1
    fewer = COUNTS[COUNTS.index(found.gpus) - 1]
    on_fewer = replace(training, parallelism=replace(found, gpus=fewer, nodes=1))
    assert judge(estimate_training(model, replace(training, parallelism=found), A100), A100).fit is Fit.FITS
    assert judge(estimate_training(model, on_fewer, A100), A100).fit is not Fit.FITS
    assert f"fits on {found.gpus} ×" in " ".join(make_plan(model, training, A100).notes)


# ── tensor parallel ─────────────────────────────────────────────────────────────────────────────────────────────────


def split(gpus: int) -> MemoryProfile:
    return estimate_inference(
        LLAMA_70B, InferenceSpec(parallelism=ParallelismSpec(gpus=gpus, strategy="tensor")), A100
    )


def test_tensor_parallel_cuts_matrices_and_cache() -> None:
    alone, many = estimate_inference(LLAMA_70B, InferenceSpec(), A100), split(8)
    table = 128_256 * 8192 * 2
    weights = total(alone, Part.WEIGHTS, Phase.DECODE)
    assert total(many, Part.WEIGHTS, Phase.DECODE) == pytest.approx((weights - table) / 8 + table, rel=1e-3)
    cache = [c.bytes for p in (alone, many) for c in p.alive_in(Phase.PREFILL) if c.part is Part.KV_CACHE]
    assert cache[0] == 8 * cache[1]


def test_heads_that_cannot_be_shared_are_refused() -> None:
    with pytest.raises(SpecError, match="attention heads"):
        split(3)
