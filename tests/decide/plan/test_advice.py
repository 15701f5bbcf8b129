"""Changes that make a recipe fit: they differ from what is set and are judged by their own recipe."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from recipes_and_cards import A100, CARDS, FULL, LLAMA_8B, LORA_16, QLORA, RECIPES, SMALL, T4

from peftbench.catalog.gpus import find_gpu
from peftbench.catalog.models import find_model
from peftbench.decide.card import settle_training
from peftbench.decide.plan.advice import suggest
from peftbench.decide.plan.plan import make_plan
from peftbench.decide.plan.savings import EIGHT_BIT, PAGED, SAVINGS
from peftbench.decide.recipe import recipe_options
from peftbench.decide.verdict import Fit, judge
from peftbench.estimate.parts.optimizer import OPTIMIZERS
from peftbench.estimate.training import estimate_training
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.inputs.recipe import QuantizationSpec, TrainingSpec


@settings(max_examples=60, deadline=None)
@given(training=RECIPES, gpu=CARDS)
def test_each_change_improves_and_is_judged_by_its_own_recipe(training: TrainingSpec, gpu: GpuSpec) -> None:
    training, _ = settle_training(SMALL, training, gpu)
    now = judge(estimate_training(SMALL, training, gpu), gpu)
    for change in suggest(SMALL, training, gpu):
        profile = estimate_training(SMALL, change.training, gpu)
        assert change.verdict == judge(profile, gpu)
        assert change.device_bytes == profile.device_bytes
        assert change.fit.rank < now.fit.rank
        assert change.training != training
        assert change.price


@settings(max_examples=60, deadline=None)
@given(training=RECIPES, gpu=CARDS)
def test_each_change_names_what_it_sets(training: TrainingSpec, gpu: GpuSpec) -> None:
    training, _ = settle_training(SMALL, training, gpu)
    before = recipe_options(training)
    for change in suggest(SMALL, training, gpu):
        after = recipe_options(change.training)
        for difference in change.differences:
            assert difference.before != difference.after
            if difference.option != "--method":
                name = difference.option.removeprefix("--").replace("-", "_")
                assert (before[name], after[name]) == (difference.before, difference.after)


@settings(max_examples=30, deadline=None)
@given(training=RECIPES, gpu=CARDS)
def test_a_change_can_be_planned_as_it_is(training: TrainingSpec, gpu: GpuSpec) -> None:
    for change in make_plan(SMALL, training, gpu).changes:
        again = make_plan(SMALL, change.training, gpu, with_changes=False)
        assert again.recipe == change.training
        assert again.verdict == change.verdict


def test_nothing_is_suggested_to_what_fits() -> None:
    assert suggest(LLAMA_8B, QLORA, A100) == ()


def test_a_fused_loss_is_the_first_advice_for_a_long_sequence() -> None:
    training = replace(QLORA, sequence_length=8192, micro_batch_size=4)
    first = suggest(LLAMA_8B, training, find_gpu("a100-40gb"))[0]
    assert (first.option, first.before, first.after) == ("--loss", "transformers", "liger")
    assert first.fit is Fit.FITS
    assert first.arguments == ("--loss", "liger")


def test_changes_combine_when_none_is_enough() -> None:
    training = replace(QLORA, sequence_length=8192, micro_batch_size=4)
    combined = [
        c
        for c in suggest(LLAMA_8B, training, find_gpu("rtx4090"))
        if "--loss" in c.option and " + " in c.option
    ]
    assert [change.fit for change in combined] == [Fit.FITS]
    assert isinstance(combined[0].after, str)
    assert "liger" in combined[0].after.split(" + ")


def test_the_method_changes_last() -> None:
    changes = suggest(LLAMA_8B, FULL, find_gpu("a100-40gb"))
    assert [c.option for c in changes] == ["--optimizer", "--method"]
    assert changes[-1].training.method == "lora"


def test_a_change_of_method_on_a_card_without_bfloat16_computes_in_float16() -> None:
    training, _ = settle_training(LLAMA_8B, LORA_16, T4)
    qlora = suggest(LLAMA_8B, training, T4)[-1]
    assert qlora.arguments == ("--method", "qlora")
    assert qlora.training.quantization is not None
    assert qlora.training.quantization.compute_dtype == "float16"


def test_quantization_is_no_advice_where_bitsandbytes_quantizes_nothing() -> None:
    mixtral = find_model("mistralai/Mixtral-8x7B-v0.1")
    methods = [c.training.method for c in suggest(mixtral, LORA_16, find_gpu("a100-80gb"))]
    assert "qlora" not in methods


def test_an_older_transformers_quantizes_experts() -> None:
    mixtral = find_model("mistralai/Mixtral-8x7B-v0.1")
    qlora = replace(LORA_16, quantization=QuantizationSpec())
    (older,) = (c for c in suggest(mixtral, qlora, find_gpu("a100-80gb")) if c.option == "--transformers")
    assert older.arguments == ("--transformers", "4.48")
    assert older.fit is Fit.FITS


def test_suggested_optimizers_can_be_priced() -> None:
    assert {*EIGHT_BIT.values(), *PAGED.values()} <= set(OPTIMIZERS)


@pytest.mark.parametrize("size", [1, 2, 7, 12, 36, 97, 120, 1000])
def test_a_batch_is_made_smaller_by_its_divisors(size: int) -> None:
    (accumulate,) = (each for each in SAVINGS if each.price == "the same batch in smaller passes")
    values = accumulate.values(replace(FULL, micro_batch_size=size), SMALL, T4)
    assert list(values) == [n for n in range(size - 1, 0, -1) if size % n == 0]


def test_another_frameworks_memory_is_not_priced() -> None:
    plan = make_plan(LLAMA_8B, LORA_16, A100, framework="unsloth")
    assert any("--framework unsloth changes the time alone" in note for note in plan.notes)
    assert plan.profile == make_plan(LLAMA_8B, LORA_16, A100).profile
