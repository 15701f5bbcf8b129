"""--explain: every part has formulas that exist and are documented, whatever the recipe."""

from __future__ import annotations

from inspect import getdoc

import pytest

from peftbench import AdapterSpec, InferenceSpec, SpecError, TrainingSpec, find_model, plan
from peftbench.estimate.peft_types.table import METHODS
from peftbench.inputs.recipe.training import LOSSES, TRANSFORMERS
from peftbench.memory import Part
from peftbench.report.format.terminal import Style
from peftbench.report.plan.explain import explain, find_part, formulas_of

RECIPES = [
    InferenceSpec(),
    *(TrainingSpec(loss=loss, transformers=version) for loss in LOSSES for version in TRANSFORMERS),
    *(TrainingSpec(adapter=AdapterSpec(peft_type=peft_type)) for peft_type in METHODS),
]


@pytest.mark.parametrize("part", Part)
def test_every_part_has_documented_formulas(part: Part) -> None:
    model = find_model("8b")
    for function in {f for recipe in RECIPES for f in formulas_of(part, model, recipe)}:
        assert getdoc(function), function.__name__


@pytest.mark.parametrize("text", ["logits and loss", "logits-and-loss", "LOGITS", "Logits_and_Loss"])
def test_a_part_is_found_however_it_is_written(text: str) -> None:
    assert find_part(text) is Part.LOGITS


def test_an_unknown_part_is_refused() -> None:
    with pytest.raises(SpecError, match="Did you mean gradients"):
        find_part("gradient")


def test_the_explanation_has_the_arithmetic_and_the_docstring() -> None:
    text = explain([plan("8b", "l4", "qlora")], "quantization constants", Style(80))
    assert "alive in: load" in text and "_constants_bytes" in text
