"""What a card cannot run is refused or replaced, as its columns of gpus.csv say."""

from __future__ import annotations

import pytest

from peftbench.base.errors import SpecError
from peftbench.catalog.gpus import find_gpu
from peftbench.decide.card import adapt_to_card
from peftbench.estimate.parts.card import traits_of
from peftbench.inputs.recipe import DType, TrainingSpec

FLASH = TrainingSpec(attention="flash_attention_2")


@pytest.mark.parametrize(
    ("card", "said"),
    [
        ("t4", "needs compute capability 8.0 (Ampere); t4 has 7.5."),
        ("gtx1080ti", "needs compute capability 8.0 (Ampere); gtx1080ti has 6.1."),
        ("arc-a770", "flash_attention_2 has no kernels for arc-a770."),
    ],
)
def test_flash_attention_is_refused_where_it_has_no_kernels(card: str, said: str) -> None:
    with pytest.raises(SpecError) as error:
        adapt_to_card(FLASH, find_gpu(card))
    assert error.value.what.endswith(said) and error.value.hint == "Use --attention sdpa."


@pytest.mark.parametrize("card", ["rtx3090", "gb10", "mi300x"])
def test_flash_attention_runs_where_it_has(card: str) -> None:
    assert adapt_to_card(FLASH, find_gpu(card)) == (FLASH, ())


def test_columns_decide_the_kernels_of_a_step() -> None:
    found = {card: traits_of(find_gpu(card)) for card in ("rtx2080ti", "arc-b580", "mi210", "l4")}
    assert [card for card, traits in found.items() if traits.flash] == ["mi210", "l4"]
    assert [card for card, traits in found.items() if traits.grouped_mm] == ["arc-b580", "mi210", "l4"]
    assert [card for card, traits in found.items() if traits.bfloat16] == ["arc-b580", "mi210", "l4"]
    adapted, _ = adapt_to_card(TrainingSpec(), find_gpu("rtx2080ti"))
    assert adapted.dtype is DType.FLOAT16
