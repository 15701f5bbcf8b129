"""The largest value of an option: with the whole band, as expected, and where the model's positions end the search."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recipes_and_cards import A100, CARDS, FULL, LLAMA_8B, QLORA, RECIPES, SMALL, T4

from peftbench.base.errors import SpecError
from peftbench.catalog.gpus import find_gpu
from peftbench.catalog.models import find_model
from peftbench.decide.plan.largest import MOST_SEQUENCES, largest, largest_of
from peftbench.decide.plan.savings import SEQUENCE_STEP
from peftbench.decide.verdict import Fit, judge
from peftbench.estimate.training import estimate_training
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.inputs.recipe import TrainingSpec


def fits(training: TrainingSpec, gpu: GpuSpec) -> bool:
    return judge(estimate_training(SMALL, training, gpu), gpu).fit is Fit.FITS


@settings(max_examples=40, deadline=None)
@given(training=RECIPES, gpu=CARDS, field=st.sampled_from(("sequence_length", "micro_batch_size")))
def test_the_largest_value_fits_and_the_next_does_not(
    training: TrainingSpec, gpu: GpuSpec, field: str
) -> None:
    most = largest(SMALL, training, gpu, field)
    step = SEQUENCE_STEP if field == "sequence_length" and most >= SEQUENCE_STEP else 1
    assert most == 0 or fits(replace(training, **{field: most}), gpu)
    bound = SMALL.max_position_embeddings if field == "sequence_length" else MOST_SEQUENCES
    if most != bound:
        assert not fits(replace(training, **{field: most + step}), gpu)


def test_more_is_expected_to_fit_than_with_the_whole_band() -> None:
    sure, possible = (largest(SMALL, QLORA, A100, "micro_batch_size", fit) for fit in (Fit.FITS, Fit.TIGHT))
    assert sure < possible
    beyond = replace(QLORA, micro_batch_size=possible + 1)
    assert not judge(estimate_training(SMALL, beyond, A100), A100).fit.is_likely


def test_the_largest_sequence_is_a_multiple_or_all_positions() -> None:
    assert largest(LLAMA_8B, QLORA, A100, "sequence_length") % SEQUENCE_STEP == 0
    gpt2 = find_model("gpt2")
    assert largest(gpt2, replace(QLORA, micro_batch_size=1), A100, "sequence_length") == 1024


def test_the_largest_is_zero_when_even_one_does_not_fit() -> None:
    assert largest(LLAMA_8B, FULL, T4, "sequence_length") == 0
    assert largest(LLAMA_8B, FULL, T4, "micro_batch_size") == 0


def test_the_largest_of_something_else_is_refused() -> None:
    with pytest.raises(SpecError, match="no largest r"):
        largest(LLAMA_8B, QLORA, T4, "r")


def test_the_verdict_is_on_the_length_that_fits() -> None:
    found = largest_of(LLAMA_8B, QLORA, T4, "sequence_length")
    assert 0 < found.fits < found.expected and found.value == found.fits
    assert found.verdict.fit is Fit.FITS and found.beyond is None


def test_where_nothing_fits_the_verdict_is_on_the_least() -> None:
    found = largest_of(LLAMA_8B, FULL, T4, "sequence_length")
    assert (found.fits, found.expected, found.value) == (0, 0, 1)
    assert found.verdict.fit is Fit.DOES_NOT_FIT


def test_beyond_its_positions_a_model_that_rotates_is_priced_and_a_table_is_not() -> None:
    h200 = find_gpu("h200")
    rotates, learns = (largest_of(find_model(name), QLORA, h200, "sequence_length") for name in ("pythia-160m", "gpt2"))
    assert rotates.fits == rotates.positions == 2048
    assert rotates.beyond is not None and rotates.beyond > 2048
    assert learns.fits == learns.positions == 1024 and learns.beyond is None
