"""What the gradient of the embeddings takes on a card beside the table that it makes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from peftbench.catalog.gpus import find_gpu
from peftbench.catalog.models import find_model
from peftbench.estimate.parts.card import traits_of
from peftbench.estimate.training import moments_of
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.inputs.recipe import TrainingSpec
from peftbench.memory import Part

A100 = find_gpu("a100-80gb")
CPU = replace(A100, is_cpu=True)
MODEL = find_model("SmolLM2-135M")
INDICES = 3 * 8
"""Bytes a token of the sorted index lists."""


def workspace(tokens: int, gpu: GpuSpec = A100) -> int:
    training = TrainingSpec(sequence_length=tokens)
    stretches = moments_of(MODEL, training, traits_of(gpu)).stretches
    (moment,) = next(stretch for stretch in stretches if stretch.unit == "embedding").moments
    per_token, _, fixed = moment.by_part[Part.WORKSPACE]
    return per_token * tokens + fixed


@pytest.mark.parametrize("tokens", [4096, 8192, 65_536])
def test_partial_sums_of_many_tokens(tokens: int) -> None:
    """embedding_backward_cuda_kernel: a row for every ten tokens and one for every word, in float32."""
    rows = tokens // 10 + min(tokens, MODEL.vocab_size)
    assert workspace(tokens) == pytest.approx(tokens * INDICES + 4 * rows * MODEL.embedding_size, rel=0.001)


def test_few_tokens_and_a_cpu_need_no_partial_sums() -> None:
    assert workspace(3072) == 3072 * INDICES
    assert workspace(4096, CPU) == 4096 * INDICES
