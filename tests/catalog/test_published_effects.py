"""The published figures of quality and latency: whole, in units that are meant, and found for a model of their size."""

from __future__ import annotations

import pytest

from peftbench.catalog.gpus import find_gpu
from peftbench.catalog.models import list_models
from peftbench.catalog.published_effects import (
    cards_with_latency,
    dynamic_ratio_of,
    latency_rows,
    quality_of,
    quality_rows,
)

COUNTS = {model.id: model.num_parameters for model in list_models()}


@pytest.mark.parametrize("row", quality_rows(), ids=lambda row: f"{row.model}-{row.dataset}-{row.value}")
def test_a_quality_is_whole(row) -> None:
    assert row.source and row.dataset
    assert row.parameters == COUNTS.get(row.model, row.parameters)
    assert row.metric in ("perplexity", "loss", "accuracy")
    assert row.weights in ("nf4", "nf4-dq", "bnb-4bit")
    ratio = row.perplexity_ratio
    assert 1 < ratio < 1.2 if ratio else 0 < row.value < 100


@pytest.mark.parametrize("row", latency_rows(), ids=lambda row: f"{row.model}-{row.weights}-{row.seconds:.4f}")
def test_a_latency_is_whole(row) -> None:
    assert row.source and row.gpu
    assert 0.01 < row.seconds < 20
    assert (row.layers is None) == (row.linears_per_layer is None)
    assert row.route != "dynamic" or row.slowdown > 1
    assert row.weights or row.layers is None


def test_cards_with_times_are_in_the_catalogue() -> None:
    assert cards_with_latency() == {"a100-40gb", "a100-80gb"}
    assert all(find_gpu(name).memory_bandwidth for name in cards_with_latency())


def test_a_model_of_the_name_comes_first_then_one_of_the_size() -> None:
    own = quality_of("Qwen/Qwen2.5-3B", COUNTS["Qwen/Qwen2.5-3B"], fine_tuned=True)
    assert own and own.model == "Qwen/Qwen2.5-3B"
    near = quality_of("meta-llama/Llama-3.1-8B", 8_030_261_248, fine_tuned=True)
    assert near and near.model == "meta-llama/Meta-Llama-3-8B"
    assert near.perplexity_ratio == pytest.approx(1.0523, abs=1e-4)
    plain = quality_of("meta-llama/Llama-3.1-8B", 8_030_261_248, fine_tuned=False)
    assert plain and plain.model == "meta-llama/Llama-2-7b-hf" and not plain.fine_tuned


def test_a_size_that_nobody_published_has_none() -> None:
    assert quality_of("some/thing", 10**8, fine_tuned=False) is None
    assert dynamic_ratio_of("lora", 70 * 10**9) is None
    assert dynamic_ratio_of("oft", 8 * 10**9) is None


def test_the_ratio_of_a_dynamic_adapter_is_over_all_rows() -> None:
    lora, dora = (dynamic_ratio_of(kind, 8 * 10**9) for kind in ("lora", "dora"))
    assert lora and dora
    assert (lora.low, lora.median, lora.high) == pytest.approx((30.81 / 19.9, 30.81 / 18.81, 30.81 / 18.1))
    assert dora.low == dora.high > 4 * lora.high
