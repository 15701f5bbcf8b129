"""Causes of a step's time that only some recipes and cards have, and what is said where little is known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from peftbench.catalog.gpus import find_gpu, gpu_of_size, list_gpus, with_speed
from peftbench.catalog.models import find_model
from peftbench.estimate.sharding.links import link_rate
from peftbench.estimate.time.constants import PRIOR, best_matmul
from peftbench.estimate.time.flops import step_work
from peftbench.estimate.time.step import StepTime, constants_of, step_time, unknown_time
from peftbench.estimate.training import trainable_parameters
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


# ── types, tensors and caches ───────────────────────────────────────────────────────────────────────────

FLOAT16 = replace(LORA, dtype=DType.FLOAT16, autocast=False)
UPCAST = QuantizationSpec(compute_dtype=DType.FLOAT16, upcast_unquantized=True)


def test_products_of_float32_weights_run_on_float32_units_without_autocast() -> None:
    """A T4 has an eighth of the rate there: head and adapter of a QLoRA that was prepared for k-bit training."""
    adapter, head = (
        step_work(MODEL, replace(FLOAT16, quantization=quantization)).float32_flops for quantization in (None, UPCAST)
    )
    trained = trainable_parameters(MODEL, FLOAT16)
    assert adapter == 2 * FLOAT16.tokens * trained * 4
    assert head - adapter == 2 * FLOAT16.tokens * 2 * MODEL.vocab_size * MODEL.hidden_size
    assert step_work(MODEL, replace(FLOAT16, quantization=UPCAST, autocast=True)).float32_flops == 0
    in_16_bit = replace(FLOAT16, adapter=replace(LORA.adapter, dtype=DType.FLOAT16))  # type: ignore[type-var]
    assert step_work(MODEL, in_16_bit).float32_flops == 0
    whole = step_work(MODEL, replace(LORA, dtype=DType.FLOAT32, autocast=False))
    assert whole.float32_flops == whole.matmul_flops


def test_a_float32_recipe_takes_the_card_s_rate_of_float32() -> None:
    single, half = (expected(replace(LORA, dtype=dtype, autocast=False)) for dtype in (DType.FLOAT32, DType.BFLOAT16))
    assert single.parts.compute_s > 10 * half.parts.compute_s
    assert single.parts.memory_traffic_s > 1.5 * half.parts.memory_traffic_s


def test_attention_in_float32_is_slow_and_sdpa_s_unfused_path_computes_in_it() -> None:
    eager = replace(FLOAT16, attention="eager")
    half, single = (expected(replace(eager, quantization=each), "t4") for each in (None, UPCAST))
    assert single.parts.attention_s > 6 * half.parts.attention_s
    unfused = expected(FLOAT16, "t4")  # grouped heads: no fused kernel on a T4
    assert unfused.parts.attention_s == pytest.approx(single.parts.attention_s)
    assert unfused.attends == single.attends == "2.2 TFLOP of all pairs in float32"
    assert half.attends == "2.2 TFLOP of all pairs" and expected(FLOAT16).attends.endswith("of causal pairs")


def test_a_float32_stream_moves_more_bytes() -> None:
    eager = replace(FLOAT16, attention="eager")
    half, single = (expected(replace(eager, quantization=each), "t4") for each in (QuantizationSpec(), UPCAST))
    assert single.parts.memory_traffic_s > 1.2 * half.parts.memory_traffic_s


def test_tensors_that_stay_in_the_card_s_cache_take_less_time() -> None:
    gpu = find_gpu("l40s")
    small = replace(gpu, l2_bytes=2**22)
    for length, least, most in ((128, 1.5, 4.0), (65536, 1.0, 1.05)):
        recipe = replace(LORA, sequence_length=length)
        kept, moved = (step_time(MODEL, recipe, card) for card in (gpu, small))
        assert kept is not None and moved is not None
        assert least <= moved.parts.memory_traffic_s / kept.parts.memory_traffic_s < most


def test_hooks_of_sharding_take_the_host_s_time() -> None:
    sharded, copied = (
        expected(replace(LORA, parallelism=ParallelismSpec(gpus=2, strategy=each))) for each in ("fsdp", "ddp")
    )
    more = sharded.parts.launch_floor_s - copied.parts.launch_floor_s
    assert more == pytest.approx(MODEL.num_hidden_layers * PRIOR.shard_launch_s)


# ── what is not known ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("recipe", "card", "said"),
    [
        (LORA, "p100-16gb", "rates of p100-16gb"),
        (replace(LORA, dtype=DType.FLOAT32, autocast=False), "a100-80gb", ""),
    ],
)
def test_where_there_is_no_time_there_is_a_reason(recipe: TrainingSpec, card: str, said: str) -> None:
    reason = unknown_time(recipe, find_gpu(card))
    assert said in reason and bool(reason) == bool(said)
    assert (step_time(MODEL, recipe, find_gpu(card)) is None) == bool(reason)


def test_a_recipe_that_nobody_timed_has_a_wider_band_than_a_card() -> None:
    usual, other_card = expected(LORA), expected(LORA, "a40")
    dora = expected(replace(LORA, adapter=replace(LORA.adapter, use_dora=True)))  # type: ignore[type-var]
    assert usual.band < other_card.band < dora.band


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
