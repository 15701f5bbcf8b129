"""A card that is full: the allocator gives back what it keeps before a request fails."""

from __future__ import annotations

import pytest

from peftbench.base.units import GIB, MIB
from peftbench.catalog.gpus import find_gpu, gpu_of_size
from peftbench.catalog.models import find_model
from peftbench.estimate.training import estimate_training
from peftbench.inputs.recipe import AdapterSpec, DType, QuantizationSpec, TrainingSpec

MODEL = find_model("HuggingFaceTB/SmolLM2-135M")
LORA = TrainingSpec(adapter=AdapterSpec(), loop="plain", micro_batch_size=2)
ROOMY = estimate_training(MODEL, LORA, gpu_of_size(80 * GIB))


def test_the_peak_on_a_full_card_lies_below_its_size():
    """A request that fails is larger than what was left."""
    gpu = gpu_of_size(ROOMY.device_bytes - 64 * MIB)
    full = estimate_training(MODEL, LORA, gpu)
    assert full.full is not None and full.needed_bytes == ROOMY.needed_bytes
    assert full.allocated_bytes == ROOMY.allocated_bytes <= full.reserved_bytes < gpu.usable_bytes
    assert full.device_low_bytes < full.device_bytes <= full.device_high_bytes < full.needed_high_bytes


def test_a_card_with_room_and_one_that_is_too_small_are_not_replayed_again():
    small = estimate_training(MODEL, LORA, gpu_of_size(ROOMY.allocated_bytes))
    assert ROOMY.full is None and small.full is None
    assert small.device_bytes == small.needed_bytes


FMS = {"use_reentrant": True, "optimizer": "adamw_torch", "attention": "flash_attention_2", "sequence_length": 4096}
ADAPTER = AdapterSpec(r=16, target_modules=("q_proj", "k_proj", "v_proj", "o_proj"), dropout=0.05)
NF4 = QuantizationSpec(double_quant=True, compute_dtype=DType.BFLOAT16)
FOAK = {"fused_kernels": "norm-rope", "transformers": "4.45"}


@pytest.mark.parametrize(
    ("recipe", "measured_mib"),
    [
        (TrainingSpec(**FMS, **FOAK, loss="liger", micro_batch_size=16), 79041),
        (TrainingSpec(**FMS, **FOAK, loss="fused", micro_batch_size=32, adapter=ADAPTER, quantization=NF4), 78209),
    ],
    ids=["full fine-tuning", "QLoRA"],
)
def test_runs_that_filled_an_a100(recipe: TrainingSpec, measured_mib: int):
    """Source: fms-acceleration, scripts/benchmarks/refs/a100_80gb_liger.csv; a larger card would have kept 94 GiB."""
    found = estimate_training(find_model("mistralai/Mistral-7B-v0.1"), recipe, find_gpu("a100-80gb"))
    assert found.needed_bytes > 90_000 * MIB
    assert found.device_bytes == pytest.approx(measured_mib * MIB, rel=0.015)
