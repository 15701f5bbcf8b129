"""Scores of every pair of tokens: what softmax takes on a card and on a CPU, and runs measured on a T4 to the byte."""

from __future__ import annotations

from dataclasses import replace

import pytest

from peftbench.catalog.gpus import find_gpu
from peftbench.catalog.models import find_model
from peftbench.estimate.inference import estimate_inference
from peftbench.estimate.parts.card import traits_of
from peftbench.estimate.training import estimate_training, moments_of
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.inputs.recipe import AdapterSpec, DType, InferenceSpec, QuantizationSpec, TrainingSpec

T4, A100 = find_gpu("t4"), find_gpu("a100-80gb")
CPU = replace(A100, is_cpu=True)
MIB = 1 << 20
ADAPTER = AdapterSpec(r=32, target_modules=("q_proj", "k_proj", "v_proj", "o_proj"))
UNFUSED = TrainingSpec(dtype=DType.FLOAT16, autocast=False, attention="eager", loop="plain", adapter=ADAPTER)
NF4 = QuantizationSpec(double_quant=False, compute_dtype=DType.FLOAT16, upcast_unquantized=True)
MODEL = find_model("SmolLM2-360M")
HEADS = MODEL.num_attention_heads


def bytes_of_a_pair(training: TrainingSpec, gpu: GpuSpec) -> int:
    """The most that a head takes for a token and a key in a checkpointed layer, the mask of all heads apart."""
    step = moments_of(MODEL, training, traits_of(gpu))
    return max(moment.per_pair for stretch in step.stretches for moment in stretch.moments) // HEADS


@pytest.mark.parametrize(
    ("changes", "on_card", "on_cpu"),
    [
        pytest.param({"quantization": NF4}, 16, 12, id="float32: gradient, output, their product, result"),
        pytest.param({}, 14, 12, id="float16: the same with a result in float16, where nothing was cast before"),
        pytest.param({"autocast": True}, 14, 12, id="float16 under autocast, whose softmax is in float32"),
        pytest.param({"dtype": DType.FLOAT32, "autocast": True}, 16, 12, id="a float32 mask makes scores float32"),
    ],
)
def test_softmax_of_scores(changes: dict[str, object], on_card: int, on_cpu: int) -> None:
    training = replace(UNFUSED, **changes)
    assert bytes_of_a_pair(training, T4) == on_card
    assert bytes_of_a_pair(training, CPU) == on_cpu


def test_bfloat16_is_cast_to_float32_first() -> None:
    """The gradient is float32 until it is cast back."""
    assert bytes_of_a_pair(replace(UNFUSED, dtype=DType.BFLOAT16), A100) == 16


def test_unfused_sdpa_chooses_between_a_softmax_and_zeros() -> None:
    """Scores, softmax, mask and result: 13 bytes. A T4 runs it where query heads share key heads."""
    prompt = InferenceSpec(prompt_tokens=2048, new_tokens=1, dtype=DType.FLOAT16)
    short = estimate_inference(MODEL, replace(prompt, prompt_tokens=1024), T4).allocated_bytes
    grown = estimate_inference(MODEL, prompt, T4).allocated_bytes - short
    assert grown == pytest.approx(13 * HEADS * (2048**2 - 1024**2), rel=0.15)


@pytest.mark.parametrize(
    ("name", "quantization", "length", "batch", "measured_mib"),
    [
        ("SmolLM2-1.7B", NF4, 2048, 1, 4323.005859375),
        ("SmolLM2-1.7B", None, 2048, 1, 5706.232421875),
        ("SmolLM2-360M", NF4, 4096, 1, 5687.154296875),
        ("SmolLM2-360M", None, 4096, 1, 4908.51171875),
        ("TinyLlama-1.1B-Chat-v1.0", NF4, 1024, 8, 8017.9052734375),
        ("TinyLlama-1.1B-Chat-v1.0", NF4, 2048, 2, 6650.9912109375),
        ("TinyLlama-1.1B-Chat-v1.0", None, 2048, 2, 6616.115234375),
    ],
)
def test_runs_on_a_t4(
    name: str, quantization: QuantizationSpec | None, length: int, batch: int, measured_mib: float
) -> None:
    """Source: fitcheck-llm 0.3.1 on PyPI, data/measurements: torch 2.10, transformers 5.0, peft 0.19.1."""
    training = replace(UNFUSED, quantization=quantization, sequence_length=length, micro_batch_size=batch)
    expected = estimate_training(find_model(name), training, T4).allocated_bytes
    assert expected == pytest.approx(measured_mib * MIB, rel=0.01)
