"""The expected time of a training step: what its terms add up to, what makes it longer, and where it is not known."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftbench.base.errors import SpecError
from peftbench.catalog.gpus import find_gpu, list_gpus
from peftbench.catalog.models import find_model
from peftbench.estimate.sharding.links import link_rate
from peftbench.estimate.time.flops import step_work
from peftbench.estimate.time.step import FRAMEWORKS, StepTime, constants_of, step_time
from peftbench.inputs.card.gpu import CardConstants
from peftbench.inputs.recipe import AdapterSpec, ParallelismSpec, QuantizationSpec, TrainingSpec

MODEL = find_model("llama-3.2-1b")
LORA = AdapterSpec(peft_type="lora", r=16, target_modules=("all-linear",))
RECIPES = {
    "full": TrainingSpec(),
    "lora": TrainingSpec(adapter=LORA),
    "qlora": TrainingSpec(adapter=LORA, quantization=QuantizationSpec()),
}


def expected(recipe: TrainingSpec, card: str = "a100-80gb", framework: str = "transformers") -> StepTime:
    found = step_time(MODEL, recipe, find_gpu(card), framework)
    assert found is not None
    return found


def term(step: StepTime, name: str) -> float:
    return sum(each.seconds for each in step.terms if each.name == name)


SHARED = st.sampled_from(
    [
        ParallelismSpec(),
        ParallelismSpec(gpus=2, strategy="ddp"),
        ParallelismSpec(gpus=8, strategy="fsdp"),
        ParallelismSpec(gpus=16, nodes=2, strategy="zero3"),
        ParallelismSpec(gpus=8, strategy="zero2", link="pcie"),
        ParallelismSpec(gpus=4, strategy="fsdp", cpu_offload=True),
    ]
)


@given(
    st.sampled_from(sorted(RECIPES)), st.sampled_from(FRAMEWORKS), SHARED, st.booleans(),
    st.sampled_from(["eager", "sdpa"]), st.integers(1, 4), st.integers(1, 4096),
)  # fmt: skip
def test_terms_add_up_to_the_step_and_the_band_holds_it(
    method: str, framework: str, parallel: ParallelismSpec, checkpointing: bool, attention: str, steps: int, length: int
) -> None:
    recipe = replace(
        RECIPES[method], parallelism=parallel, gradient_checkpointing=checkpointing, attention=attention,
        gradient_accumulation_steps=steps, sequence_length=length,
    )  # fmt: skip
    step = expected(recipe, framework=framework)
    assert sum(each.seconds for each in step.terms) == pytest.approx(step.step_s)
    assert all(each.seconds > 0 and each.because for each in step.terms)
    assert step.low_s < step.step_s < step.high_s
    assert step.tokens_per_s * step.step_s == pytest.approx(recipe.tokens * steps * parallel.gpus)
    assert step.tokens_per_s_low < step.tokens_per_s < step.tokens_per_s_high


@pytest.mark.parametrize(
    "longer",
    [
        {"sequence_length": 4096},
        {"micro_batch_size": 2},
        {"gradient_accumulation_steps": 2},
        {"attention": "eager"},
        {"optimizer": "adamw_torch"},
    ],
    ids=str,
)
def test_more_work_takes_longer(longer: dict[str, object]) -> None:
    recipe = RECIPES["full"]
    assert expected(replace(recipe, **longer)).step_s > expected(recipe).step_s  # type: ignore[arg-type]


def test_recomputing_costs_a_third_of_full_fine_tuning_products_where_it_does_not_stop_early() -> None:
    with_it, without = (replace(RECIPES["full"], gradient_checkpointing=on) for on in (True, False))
    reentrant = replace(with_it, use_reentrant=True)
    more = step_work(MODEL, reentrant).matmul_flops - step_work(MODEL, without).matmul_flops
    head = 6 * MODEL.vocab_size * MODEL.hidden_size * without.tokens
    assert 3 * more == step_work(MODEL, without).matmul_flops - head
    assert step_work(MODEL, without).matmul_flops < step_work(MODEL, with_it).matmul_flops
    assert step_work(MODEL, with_it).matmul_flops < step_work(MODEL, reentrant).matmul_flops


def test_methods_differ_where_their_work_does() -> None:
    full, lora, qlora = (expected(RECIPES[method]) for method in ("full", "lora", "qlora"))
    assert term(full, "compute") > term(lora, "compute") == term(qlora, "compute")
    assert term(full, "optimizer") > 50 * term(lora, "optimizer")
    assert term(lora, "dequantization") == 0 < term(qlora, "dequantization")


def test_a_small_batch_waits_for_the_host_whatever_the_card() -> None:
    short = replace(RECIPES["lora"], sequence_length=64)
    slow, fast = (expected(short, card).step_s for card in ("a100-80gb", "b200"))
    assert slow == pytest.approx(fast, rel=0.1)
    long = replace(RECIPES["lora"], sequence_length=4096, micro_batch_size=8)
    assert expected(long, "a100-80gb").step_s > 2 * expected(long, "b200").step_s


def test_only_the_chosen_experts_of_a_mixture_are_multiplied() -> None:
    sparse = find_model("qwen3-30b-a3b")
    dense = find_model("qwen3-32b")
    ratio = step_work(dense, TrainingSpec()).matmul_flops / step_work(sparse, TrainingSpec()).matmul_flops
    assert ratio == pytest.approx(32.8 / 3.3, rel=0.15)


def test_prompts_of_a_window_attend_within_it() -> None:
    model = find_model("gemma-3-1b")
    flops = [step_work(model, replace(TrainingSpec(), sequence_length=n)).attention_flops for n in (8192, 16384)]
    assert 2 < flops[1] / flops[0] < 4


# ── several GPUs ────────────────────────────────────────────────────────────────────────────────────────


def speed(card: str, **parallel: object) -> float:
    recipe = replace(RECIPES["full"], parallelism=ParallelismSpec(**parallel))  # type: ignore[arg-type]
    return expected(recipe, card).tokens_per_s


def test_more_gpus_are_faster_but_not_more_than_in_proportion() -> None:
    alone = speed("a100-80gb")
    for strategy in ("ddp", "fsdp"):
        assert alone < speed("a100-80gb", gpus=2, strategy=strategy) < speed("a100-80gb", gpus=8, strategy=strategy)
    assert speed("a100-80gb", gpus=8, strategy="ddp") < 8 * alone


def test_slower_links_cost() -> None:
    nvlink = speed("a100-80gb", gpus=8, strategy="fsdp")
    pcie = speed("a100-80gb", gpus=8, strategy="fsdp", link="pcie")
    offloaded = speed("a100-80gb", gpus=8, strategy="fsdp", link="pcie", cpu_offload=True)
    assert nvlink > pcie > offloaded
    assert speed("a100-80gb", gpus=16, nodes=16, strategy="fsdp") < speed("a100-80gb", gpus=16, strategy="fsdp")


def test_a_quantized_model_is_gathered_as_it_is_stored() -> None:
    parallel = ParallelismSpec(gpus=2, strategy="fsdp")
    lora, qlora = (step_work(MODEL, replace(RECIPES[m], parallelism=parallel)) for m in ("lora", "qlora"))
    assert qlora.gathered_bytes < lora.gathered_bytes


def test_links_are_those_of_the_card() -> None:
    pair = ParallelismSpec(gpus=2, strategy="ddp")
    rates = [link_rate(pair, find_gpu(card)) for card in ("b200", "h100-sxm", "a100-40gb", "h100-pcie", "rtx4090")]
    assert rates == sorted(rates, reverse=True)
    assert len(set(rates)) == len(rates)


# ── what is known ───────────────────────────────────────────────────────────────────────────────────────


def test_what_is_unknown_has_no_time() -> None:
    gpu = find_gpu("a100-80gb")
    assert step_time(MODEL, TrainingSpec(), replace(gpu, memory_bandwidth=None)) is None
    assert step_time(MODEL, TrainingSpec(), replace(gpu, tensor_flops=None)) is None
    assert step_time(MODEL, TrainingSpec(), replace(gpu, float32_flops=None)) is None


def test_every_card_with_a_data_sheet_has_a_time() -> None:
    for gpu in list_gpus():
        found = step_time(MODEL, RECIPES["qlora"], gpu)
        assert (found is None) == (not gpu.memory_bandwidth or not gpu.tensor_flops or not gpu.float32_flops), gpu


def test_cards_and_adapters_that_nobody_timed_say_so() -> None:
    assert expected(RECIPES["lora"]).calibrated
    assert not expected(RECIPES["lora"], "a40").calibrated
    assert expected(RECIPES["lora"], "a40").band > expected(RECIPES["lora"]).band
    dora = replace(RECIPES["lora"], adapter=replace(LORA, use_dora=True))
    assert not expected(dora).calibrated
    assert expected(dora).step_s > expected(RECIPES["lora"]).step_s


def test_frameworks_differ_and_an_unknown_one_is_refused() -> None:
    speeds = {name: expected(RECIPES["lora"], framework=name).step_s for name in FRAMEWORKS}
    assert len(set(speeds.values())) == len(FRAMEWORKS)
    with pytest.raises(SpecError, match="unsloth"):
        step_time(MODEL, TrainingSpec(), find_gpu("t4"), "unslot")


def test_unsloth_brings_its_own_attention_where_torch_has_none() -> None:
    usual, fused = (expected(RECIPES["lora"], "t4", framework) for framework in ("transformers", "unsloth"))
    assert term(usual, "memory traffic") > 5 * term(fused, "memory traffic")


def test_what_was_measured_on_the_card_replaces_the_priors() -> None:
    gpu = find_gpu("t4")
    slower = constants_of(gpu).matmul_share / 2
    measured = replace(gpu, calibration=CardConstants(time=(("matmul_share", slower),), time_error=1.3))
    usual, own = (step_time(MODEL, TrainingSpec(), card) for card in (gpu, measured))
    assert usual is not None and own is not None
    assert term(own, "compute") == pytest.approx(2 * term(usual, "compute"))
    assert own.calibrated and own.band == 1.3
