"""The estimate against the dry run on several GPUs: models, methods, counts and settings.

tests/benchmarks/several_gpus.py prints the errors of all recipes.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")
pytest.importorskip("bitsandbytes")

from oracle.several_recipes import RECIPES, Recipe, compare

from peftbench.dryrun.session import DryRunSession

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]

ALLOWED, MEDIAN = 0.01, 0.005
QUICK = {(name, strategy, method) for name, strategy, method in (
    ("gpt2", "fsdp", "full"), ("8b", "ddp", "qlora"), ("70b", "fsdp", "qlora"), ("70b", "fsdp", "full"),
)}  # fmt: skip
"""What runs by default: each strategy, tied and untied, trained and frozen."""


@pytest.fixture(scope="module")
def session() -> Iterator[DryRunSession]:
    with DryRunSession() as session:
        yield session


def parameters() -> list[Any]:
    return [
        pytest.param(recipe, id=" ".join(map(str, recipe)), marks=[] if recipe[:3] in QUICK else pytest.mark.slow)
        for recipe in RECIPES
    ]


errors: list[float] = []
"""Those of the recipes compared so far."""


def test_there_are_enough_recipes() -> None:
    assert len(RECIPES) >= 60 and {gpus for *_, gpus, _ in RECIPES} >= {2, 4, 8, 16, 64}


@pytest.mark.parametrize("recipe", parameters())
def test_the_estimate_agrees_with_the_dry_run(session: DryRunSession, recipe: Recipe) -> None:
    errors.append(abs(compare(session, recipe).error))
    assert errors[-1] <= ALLOWED


def test_half_of_the_recipes_agree_closely() -> None:
    """After the others; alone it has nothing to judge."""
    assert not errors or statistics.median(errors) <= MEDIAN
