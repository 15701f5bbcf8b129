"""Layers ask the family's row for what it does, never its name: a made-up family gets what its row says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from peftbench.catalog.models import find_model
from peftbench.estimate.training import estimate_training
from peftbench.inputs.model.family import Family, find_family
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.recipe import AdapterSpec, TrainingSpec

PHI3 = find_model("microsoft/Phi-3-mini-4k-instruct")
RECIPES = (
    TrainingSpec(gradient_checkpointing=False),
    TrainingSpec(gradient_checkpointing=True, adapter=AdapterSpec(target_modules=("all-linear",))),
)


def made_up(monkeypatch: pytest.MonkeyPatch, name: str, row: Family) -> ModelSpec:
    """Phi-3's sizes under a model_type that has this row; every row needs a name of its own, for the caches."""
    monkeypatch.setattr("peftbench.inputs.model.spec.find_family", {name: row, "phi3": PHI3.family}.get)
    return replace(PHI3, model_type=name)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_second_family_with_a_fused_gate_keeps_what_phi3_keeps(
    recipe: TrainingSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = PHI3.family.layout._replace(mlp="ffn.", inner=("w13",), down="w2")
    other = made_up(monkeypatch, "fused", PHI3.family._replace(layout=layout))
    assert estimate_training(other, recipe) == estimate_training(PHI3, recipe)


def test_a_row_with_two_projections_needs_other_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    llama = find_family("llama")
    assert llama is not None
    two = PHI3.family.layout._replace(inner=llama.layout.inner, fused_gate=False)
    other = made_up(monkeypatch, "two", PHI3.family._replace(layout=two))
    assert estimate_training(other, RECIPES[1]) != estimate_training(PHI3, RECIPES[1])
