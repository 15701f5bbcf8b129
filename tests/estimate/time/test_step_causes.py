"""Causes of a step's time that only some recipes and cards have, and what is said where little is known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from peftbench.catalog.gpus import find_gpu, gpu_of_size, list_gpus, with_speed
from peftbench.catalog.models import find_model
from peftbench.estimate.sharding.links import link_rate, over_nvlink
from peftbench.estimate.time.constants import best_matmul
from peftbench.estimate.time.flops import step_work
from peftbench.estimate.time.step import StepTime, constants_of, step_time, unknown_time
from peftbench.inputs.card.gpu import CardConstants
from peftbench.inputs.recipe import AdapterSpec, DType, ParallelismSpec, QuantizationSpec, TrainingSpec

MODEL = find_model("llama-3.2-1b")
LORA = TrainingSpec(adapter=AdapterSpec(peft_type="lora", r=16, target_modules=("all-linear",)))


def expected(recipe: TrainingSpec, card: str = "a100-80gb", framework: str = "transformers") -> StepTime:
    found = step_time(MODEL, recipe, find_gpu(card), framework)
    assert found is not None
    return found


def virtual(peft_type: str, tokens: int) -> TrainingSpec:
    adapter = AdapterSpec(peft_type=peft_type, options=(("num_virtual_tokens", tokens),))
    return replace(LORA, adapter=adapter, sequence_length=512, gradient_checkpointing=False)


# ── adapters ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_prompt_takes_as_long_as_its_tokens_but_counts_none_of_them() -> None:
    prompt = expected(virtual("prompt_tuning", 512))
    longer = expected(replace(virtual("prompt_tuning", 8), sequence_length=1016))
    assert prompt.micro_step_s == pytest.approx(longer.micro_step_s)
    assert prompt.tokens_per_s == pytest.approx(512 / prompt.step_s)


def test_a_prefix_is_attended_to_and_nothing_else() -> None:
    short, long = (step_work(MODEL, virtual("prefix_tuning", tokens)) for tokens in (8, 512))
    assert long.matmul_flops == short.matmul_flops
    causal, whole = 512 * 512 // 2, 512 * 512
    assert long.attention_flops / short.attention_flops == pytest.approx((causal + whole) / (causal + 512 * 8))


def test_boft_waits_for_its_blocks_whatever_the_card_and_the_tokens() -> None:
    boft = replace(LORA, adapter=AdapterSpec(peft_type="boft"), sequence_length=64)
    larger = replace(boft, adapter=AdapterSpec(peft_type="boft", options=(("boft_block_size", 64),)))
    for card in ("a100-80gb", "b200"):
        assert expected(boft, card).step_s > 2 * expected(larger, card).step_s
    assert expected(boft).doubt == "no constant was fitted to adapters that build weights in every pass"


def test_float32_weights_are_cast_under_autocast_unless_they_are_in_4_bit() -> None:
    full = TrainingSpec(gradient_checkpointing=False)
    weights = 2 * step_work(MODEL, replace(full, dtype=DType.FLOAT32)).cast_bytes // 12
    assert step_work(MODEL, full).cast_bytes == 0
    assert weights // 2 == pytest.approx(1.24e9, rel=0.01), "forward, and the gradients"
    assert expected(replace(full, dtype=DType.FLOAT32)).step_s > expected(full).step_s


# ── cards ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_measured_product_stands_for_the_card() -> None:
    for gpu in list_gpus():
        if gpu.best_flops and gpu.tensor_flops:
            assert best_matmul(gpu) == gpu.best_flops / gpu.tensor_flops


def test_cards_of_little_power_reach_less_of_their_data_sheet() -> None:
    shares = [best_matmul(find_gpu(name)) for name in ("l40s", "rtx6000-ada", "l4")]
    assert shares == sorted(shares, reverse=True) and len(set(shares)) == 3
    assert best_matmul(find_gpu("h100-pcie")) < best_matmul(find_gpu("h100-sxm"))
    assert best_matmul(replace(find_gpu("t4"), power_w=None)) > best_matmul(find_gpu("t4")) > 0.4
    assert best_matmul(replace(find_gpu("t4"), power_w=1000)) == best_matmul(replace(find_gpu("t4"), power_w=None))


def test_geforce_rates_are_those_of_float32_accumulation() -> None:
    """Half of what the same chip does on a workstation card of about as many multiprocessors and as fast a clock."""
    for geforce, workstation in (("rtx3090", "a6000"), ("rtx4090", "rtx6000-ada"), ("rtx5090", "rtx-pro-6000")):
        each = [gpu.tensor_flops / gpu.multiprocessors for gpu in map(find_gpu, (geforce, workstation))]  # type: ignore[operator]
        assert each[0] / each[1] == pytest.approx(0.5, rel=0.1)


def test_a_card_that_the_driver_names_has_the_speed_of_the_catalogue() -> None:
    here = replace(gpu_of_size(24 << 30), name="local", product="NVIDIA L4")
    assert with_speed(here).tensor_flops == find_gpu("l4").tensor_flops
    assert with_speed(here).memory_bytes == 24 << 30 and with_speed(here).name == "local"
    joined = with_speed(replace(here, product="NVIDIA H200"))
    assert link_rate(ParallelismSpec(gpus=8, strategy="fsdp"), joined) == pytest.approx(360e9)
    unheard = replace(here, product="NVIDIA Unheard 1")
    assert with_speed(unheard) == unheard


# ── links ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_bridge_joins_two_cards_and_a_ring_over_more_crosses_pcie() -> None:
    pair, four = (ParallelismSpec(gpus=n, strategy="fsdp") for n in (2, 4))
    for card, asked in (("h100-nvl", None), ("rtx3090", "nvlink")):
        two, more = (replace(parallel, link=asked) for parallel in (pair, four))
        gpu = find_gpu(card)
        assert over_nvlink(two, gpu) and not over_nvlink(more, gpu)
        assert link_rate(two, gpu) > link_rate(more, gpu)


def test_a_bridge_of_four_is_not_a_switch() -> None:
    bridged = find_gpu("h200-nvl")
    two, four, eight, apart = (
        ParallelismSpec(gpus=n, nodes=nodes, strategy="fsdp") for n, nodes in ((2, 1), (4, 1), (8, 1), (16, 2))
    )
    assert over_nvlink(two, bridged) and over_nvlink(four, bridged) and not over_nvlink(eight, bridged)
    assert link_rate(eight, bridged) == link_rate(eight, find_gpu("h100-nvl"))
    assert link_rate(apart, bridged) == link_rate(apart, find_gpu("h100-nvl"))


def test_every_amd_card_has_links() -> None:
    eight = ParallelismSpec(gpus=8, strategy="fsdp")
    assert all(over_nvlink(eight, gpu) for gpu in list_gpus() if gpu.product.startswith("AMD"))


def test_nodes_talk_over_the_network_of_their_generation() -> None:
    apart = ParallelismSpec(gpus=16, nodes=2, strategy="fsdp")
    rates = [link_rate(apart, find_gpu(card)) for card in ("h100-sxm", "a100-80gb", "l4")]
    assert rates[0] >= 2 * rates[1] >= 20 * rates[2]
    together = ParallelismSpec(gpus=8, strategy="fsdp")
    assert link_rate(apart, find_gpu("l4")) < link_rate(together, find_gpu("l4"))


def test_ddp_hides_most_of_a_short_exchange_and_little_of_a_long_one() -> None:
    full = replace(TrainingSpec(), parallelism=ParallelismSpec(gpus=8, strategy="ddp"))
    waits = []
    for link in ("nvlink", "pcie"):
        step = expected(replace(full, parallelism=replace(full.parallelism, link=link if link == "pcie" else None)))
        waits.append(step.exchange_wait_s / step.parts.exchange_s)
    assert waits[0] < waits[1] < 1


# ── what is not known ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("recipe", "card", "said"),
    [
        (LORA, "p100-16gb", "rates of p100-16gb"),
        (replace(LORA, dtype=DType.FLOAT32, autocast=False), "a100-80gb", "--autocast"),
        (replace(LORA, dtype=DType.FLOAT32, autocast=True), "a100-80gb", ""),
    ],
)
def test_where_there_is_no_time_there_is_a_reason(recipe: TrainingSpec, card: str, said: str) -> None:
    reason = unknown_time(recipe, find_gpu(card))
    assert said in reason and bool(reason) == bool(said)
    assert (step_time(MODEL, recipe, find_gpu(card)) is None) == bool(reason)


def test_several_gpus_over_pcie_are_uncalibrated_on_a_card_that_was_measured_alone() -> None:
    alone, pair = (replace(LORA, parallelism=ParallelismSpec(gpus=n, strategy=s)) for n, s in ((1, "none"), (2, "ddp")))
    assert expected(alone, "l40s").calibrated and not expected(pair, "l40s").calibrated
    assert "PCIe" in expected(pair, "l40s").doubt and expected(pair, "a100-80gb").calibrated


def test_kinds_of_weights_that_nobody_timed_are_uncalibrated() -> None:
    gpu = find_gpu("a100-80gb")
    eight_bit, four_bit = (replace(LORA, quantization=QuantizationSpec(quant_type=name)) for name in ("int8", "nf4"))
    assert "8-bit" in expected(eight_bit).doubt and expected(four_bit).calibrated
    sparse = step_time(find_model("qwen3-30b-a3b"), TrainingSpec(), gpu)
    assert sparse is not None and "experts" in sparse.doubt


def test_a_calibration_of_launches_alone_tells_nothing_of_other_frameworks() -> None:
    late = CardConstants(time=(("layer_launch_s", 5e-3),), time_error=1.05)
    card = replace(find_gpu("l4"), calibration=late)
    assert constants_of(card).calibrated and not constants_of(card, "unsloth").calibrated
    assert constants_of(card).band > 1.05, "left-out runs promise no more than published cards keep"
