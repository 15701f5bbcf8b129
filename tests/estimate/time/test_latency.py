"""Expected times of generate(): which cause decides, what is unknown, and what grows with what."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peftbench.catalog.gpus import find_gpu, gpu_of_size, list_gpus
from peftbench.catalog.models import find_model
from peftbench.decide.recipe import LORA, quantization_for
from peftbench.estimate.time.constants import HOST_COSTS
from peftbench.estimate.time.latency import Latency, Work, estimate_latency, pass_time
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.recipe import AdapterSpec, DType, InferenceSpec

LLAMA, MIXTRAL, GEMMA3 = find_model("8b"), find_model("8x7b"), find_model("google/gemma-3-1b-it")
A100, L4 = find_gpu("a100-80gb"), find_gpu("l4")
NF4 = quantization_for(DType.BFLOAT16)
LINEAR = 32 * (2 * 4096 * 4096 + 2 * 1024 * 4096 + 3 * 14336 * 4096)
"""Weights of Llama-3.1-8B's linear layers; 7 matrices in each of 32 layers."""


def expected(request: InferenceSpec, model: ModelSpec = LLAMA, gpu: GpuSpec = A100) -> Latency:
    latency = estimate_latency(model, request, gpu)
    assert latency is not None
    return latency


def test_a_pass_takes_the_longer_of_host_and_card() -> None:
    work = Work(layers=10, weight_bytes=0, flops=5 * 10**12)
    assert pass_time(work, 10**12, 10**12).seconds == 5.0
    assert pass_time(work, 10**12, 10**12).bound_by == "compute"
    idle = replace(work, flops=0)
    assert pass_time(idle, 10**12, 10**12).seconds == 10 * HOST_COSTS.layer_s
    assert pass_time(idle, 10**12, 10**12).bound_by == "launch floor"


def test_a_token_reads_every_weight_but_the_table_of_embeddings() -> None:
    read = 2 * (LINEAR + 128_256 * 4096 + 65 * 4096)
    decode = expected(InferenceSpec(), gpu=L4).decode
    assert decode.weight_traffic_s == pytest.approx(read / (0.8 * 300.1e9))
    assert decode.bound_by == "weight traffic"


def test_a_token_moves_the_cache_three_times_with_half_of_the_new_tokens_in_it() -> None:
    decode = expected(InferenceSpec(prompt_tokens=1000, new_tokens=201), gpu=L4).decode
    per_token = 2 * 8 * 128 * 2 * 32
    assert decode.kv_cache_traffic_s == pytest.approx(3 * 1100 * per_token / (0.8 * 300.1e9))


def test_a_window_bounds_what_a_token_reads() -> None:
    near, far = (
        expected(InferenceSpec(prompt_tokens=tokens, new_tokens=1), GEMMA3).decode.kv_cache_traffic_s
        for tokens in (1024, 2048)
    )
    sliding = len(GEMMA3.sliding_layers) / GEMMA3.num_hidden_layers
    assert far / near < 2 - sliding / 2


def test_prefill_is_the_arithmetic_of_the_layers_and_of_one_head() -> None:
    prefill = expected(InferenceSpec(prompt_tokens=2048)).prefill
    attention = 4 * 2048 * 1024 * 32 * 4096
    flops = 2 * (2048 * LINEAR + 128_256 * 4096) + attention
    assert prefill.compute_s == pytest.approx(flops / (0.51 * 312e12))
    assert prefill.bound_by == "compute"


def test_every_matrix_of_an_adapter_costs_the_host() -> None:
    decode = expected(InferenceSpec(adapter=LORA)).decode
    assert decode.adapter_launches_s == pytest.approx(2 * 7 * 32 * HOST_COSTS.adapter_tensor_s)
    narrow = expected(InferenceSpec(adapter=replace(LORA, target_modules=("q_proj", "v_proj")))).decode
    assert narrow.adapter_launches_s == pytest.approx(decode.adapter_launches_s * 2 / 7)
    assert expected(InferenceSpec(adapter=replace(LORA, r=64))).decode.host_s == pytest.approx(decode.host_s)


def test_four_bit_writes_the_weights_out_beyond_a_few_tokens() -> None:
    one, many = (expected(InferenceSpec(quantization=NF4, batch_size=batch)).decode for batch in (1, 16))
    assert one.dequantization_s == 0
    assert many.dequantization_s == pytest.approx(LINEAR * 2.9 * 2.5 / 2.04e12)
    assert many.weight_traffic_s == expected(InferenceSpec(batch_size=16)).decode.weight_traffic_s
    assert one.weight_traffic_s < many.weight_traffic_s / 2
    assert one.quantized_launches_s == pytest.approx(7 * 32 * HOST_COSTS.quantized_linear_s)


def test_a_token_reads_the_experts_that_it_is_sent_to() -> None:
    one, many = (expected(InferenceSpec(batch_size=batch), MIXTRAL).decode for batch in (1, 64))
    assert one.weight_traffic_s / many.weight_traffic_s == pytest.approx(2 / 8, abs=0.03)


@pytest.mark.parametrize(
    "request_",
    [
        InferenceSpec(dtype=DType.FLOAT32),
        InferenceSpec(quantization=replace(NF4, compute_dtype=DType.FLOAT32)),
        InferenceSpec(quantization=replace(NF4, quant_type="int8")),
        InferenceSpec(quantization=replace(NF4, quant_type="gptq", double_quant=False)),
        InferenceSpec(adapter=replace(LORA, use_dora=True)),
        InferenceSpec(adapter=AdapterSpec(peft_type="oft")),
    ],
)
def test_what_has_no_formula_has_no_figure(request_: InferenceSpec) -> None:
    assert estimate_latency(LLAMA, request_, A100) is None


def test_adapters_on_experts_have_no_figure() -> None:
    assert estimate_latency(MIXTRAL, InferenceSpec(adapter=LORA), A100) is None


def test_a_card_of_unknown_speed_has_no_figure() -> None:
    for gpu in (None, gpu_of_size(24 << 30), replace(A100, memory_bandwidth=None), replace(A100, tensor_flops=None)):
        assert estimate_latency(LLAMA, InferenceSpec(), gpu) is None


def test_the_band_is_wider_where_nobody_published_a_time() -> None:
    known, unknown = (estimate_latency(LLAMA, InferenceSpec(), A100, calibrated) for calibrated in (True, False))
    assert known and unknown
    assert known.decode == unknown.decode
    assert 1 < known.band < unknown.band


REQUESTS = st.builds(
    InferenceSpec,
    prompt_tokens=st.integers(1, 6000),
    new_tokens=st.integers(0, 2000),
    batch_size=st.integers(1, 64),
    adapter=st.sampled_from((None, LORA)),
    quantization=st.sampled_from((None, NF4)),
)
GROWTH = st.sampled_from(("prompt_tokens", "new_tokens", "batch_size"))
CARDS = st.sampled_from([gpu for gpu in list_gpus() if gpu.tensor_flops])


@settings(max_examples=100, deadline=None)
@given(model=st.sampled_from((LLAMA, GEMMA3)), request=REQUESTS, grows=GROWTH, gpu=CARDS)
def test_more_of_anything_never_takes_less(model, request, grows, gpu) -> None:
    more = replace(request, **{grows: getattr(request, grows) + 1})
    before, after = (expected(r, model, gpu) for r in (request, more))
    assert after.prefill.seconds >= before.prefill.seconds
    assert after.decode.seconds >= before.decode.seconds
    assert all(second >= 0 for step in (before.prefill, before.decode) for second in step)


@settings(max_examples=50, deadline=None)
@given(request=REQUESTS, gpu=CARDS)
def test_a_faster_card_never_takes_longer(request, gpu) -> None:
    faster = replace(gpu, memory_bandwidth=2 * gpu.memory_bandwidth, tensor_flops=2 * gpu.tensor_flops)
    slow, fast = (expected(request, gpu=each) for each in (gpu, faster))
    assert fast.prefill.seconds <= slow.prefill.seconds
    assert fast.decode.seconds <= slow.decode.seconds
    assert fast.decode.host_s == slow.decode.host_s
