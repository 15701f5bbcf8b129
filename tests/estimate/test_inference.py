"""The memory of generate(): the cache, and what grows with what."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peftbench.catalog.gpus import find_gpu
from peftbench.catalog.models import find_model
from peftbench.decide.recipe import LORA, quantization_for
from peftbench.estimate.inference import cached_tokens, estimate_inference
from peftbench.inputs.recipe import DType, InferenceSpec
from peftbench.memory import MemoryProfile, Part, Phase

LLAMA, MISTRAL, GEMMA3 = (
    find_model("8b"),
    find_model("mistralai/Mistral-7B-v0.1"),
    find_model("google/gemma-3-1b-it"),
)
T4, A100 = find_gpu("t4"), find_gpu("a100-80gb")
PER_TOKEN = 2 * 8 * 128 * 2 * 32
"""Keys and values of 8 heads of 128 channels in 16 bit, 32 layers: Llama-3.1-8B and Mistral-7B."""


def part_in(profile: MemoryProfile, part: Part, phase: Phase) -> int:
    return sum(c.bytes for c in profile.alive_in(phase) if c.part is part)


def test_the_cache_holds_the_prompt_and_all_but_the_last_new_token() -> None:
    profile = estimate_inference(LLAMA, InferenceSpec(prompt_tokens=1000, new_tokens=101, batch_size=3), A100)
    assert part_in(profile, Part.KV_CACHE, Phase.PREFILL) == 3 * 1000 * PER_TOKEN
    one_layer_keys = 3 * 1100 * PER_TOKEN // 64
    assert part_in(profile, Part.KV_CACHE, Phase.DECODE) == 3 * 1100 * PER_TOKEN + one_layer_keys


def test_a_window_bounds_the_cache_but_not_the_prompt() -> None:
    short = estimate_inference(MISTRAL, InferenceSpec(prompt_tokens=100, new_tokens=6000), A100)
    assert part_in(short, Part.KV_CACHE, Phase.DECODE) < 4096 * PER_TOKEN * 1.02
    long = estimate_inference(MISTRAL, InferenceSpec(prompt_tokens=8192, new_tokens=100), A100)
    assert part_in(long, Part.KV_CACHE, Phase.DECODE) > 8192 * PER_TOKEN


def test_without_new_tokens_nothing_is_decoded() -> None:
    profile = estimate_inference(LLAMA, InferenceSpec(new_tokens=1), A100)
    assert profile.phases == (Phase.LOAD, Phase.PREFILL)


def test_logits_are_those_of_the_last_token() -> None:
    one = estimate_inference(GEMMA3, InferenceSpec(prompt_tokens=1, new_tokens=2), A100)
    assert part_in(one, Part.LOGITS, Phase.PREFILL) == GEMMA3.vocab_size * 6
    assert part_in(one, Part.LOGITS, Phase.DECODE) == GEMMA3.vocab_size * 10


def test_grouped_heads_on_a_t4_pay_for_scores_of_all_pairs() -> None:
    # bfloat16 as given: the choice of float16 on a T4 is made in decide/card.py
    on_t4 = estimate_inference(LLAMA, InferenceSpec(dtype=DType.FLOAT16), T4)
    scores = 32 * 2048 * 2048 * 4
    assert part_in(on_t4, Part.ACTIVATIONS, Phase.PREFILL) > 2 * scores
    on_a100 = estimate_inference(LLAMA, InferenceSpec(), A100)
    assert part_in(on_a100, Part.ACTIVATIONS, Phase.PREFILL) < scores


@pytest.mark.parametrize("quant_type", ["nf4", "fp4", "int8"])
def test_quantized_weights_are_those_of_training(quant_type: str) -> None:
    quantization = replace(quantization_for(DType.BFLOAT16), quant_type=quant_type)
    profile = estimate_inference(LLAMA, InferenceSpec(quantization=quantization), A100)
    linear = LLAMA.num_hidden_layers * (2 * 4096 * 4096 + 2 * 1024 * 4096 + 3 * 14336 * 4096)
    assert part_in(profile, Part.WEIGHTS, Phase.LOAD) == (linear if quant_type == "int8" else linear // 2)
    assert part_in(profile, Part.UNQUANTIZED, Phase.LOAD) == 2 * (2 * 128_256 * 4096 + 65 * 4096)


def test_a_dynamic_adapter_costs_its_weights_and_a_wide_copy_of_its_input() -> None:
    merged, dynamic = (estimate_inference(LLAMA, InferenceSpec(adapter=a), A100) for a in (None, LORA))
    assert part_in(dynamic, Part.ADAPTERS, Phase.LOAD) == 41_943_040 * 4
    assert part_in(merged, Part.ADAPTERS, Phase.LOAD) == 0
    assert part_in(dynamic, Part.ACTIVATIONS, Phase.PREFILL) > part_in(
        merged, Part.ACTIVATIONS, Phase.PREFILL
    )


REQUESTS = st.builds(
    InferenceSpec,
    prompt_tokens=st.integers(1, 6000),
    new_tokens=st.integers(0, 2000),
    batch_size=st.integers(1, 16),
    adapter=st.sampled_from((None, LORA)),
    quantization=st.sampled_from((None, quantization_for(DType.BFLOAT16))),
    attention=st.sampled_from(("sdpa", "eager", "flash_attention_2")),
)
GROWTH = st.sampled_from(("prompt_tokens", "new_tokens", "batch_size"))


@settings(max_examples=100, deadline=None)
@given(model=st.sampled_from((LLAMA, MISTRAL, GEMMA3)), request=REQUESTS, grows=GROWTH)
def test_more_of_anything_never_needs_less(model, request, grows) -> None:
    more = replace(request, **{grows: getattr(request, grows) + 1})
    before, after = (estimate_inference(model, r, A100) for r in (request, more))
    assert after.device_bytes >= before.device_bytes
    assert cached_tokens(more) >= cached_tokens(request)


@settings(max_examples=100, deadline=None)
@given(model=st.sampled_from((LLAMA, MISTRAL, GEMMA3)), request=REQUESTS)
def test_nothing_is_negative_and_bands_hold_the_expected_size(model, request) -> None:
    for component in estimate_inference(model, request, T4).components:
        assert 0 <= component.low_bytes <= component.bytes <= component.high_bytes
        assert component.phases
