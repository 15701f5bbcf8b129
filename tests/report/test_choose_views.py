"""What a ranking says beside its figures: how old prices are, how long is a time, and what choosing loads."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest

from peftbench.catalog.gpus import list_gpus
from peftbench.catalog.models import find_model
from peftbench.catalog.prices import Offer, find_offers
from peftbench.decide.choose import Question, choose
from peftbench.decide.from_options import training_recipes
from peftbench.estimate.cost import Band
from peftbench.report.choose_views import COLUMNS, age_notes, duration, row_data
from tests.test_architecture import HEAVY, loaded_by


def question(*offers: Offer) -> Question:
    return Question(
        model=find_model("0.6b"), recipes=training_recipes(("lora",), {}), tokens=Band(1e6, 1e6, 1e6), sequences=8,
        offers=offers, max_gpus=1, cards={gpu.name: gpu for gpu in list_gpus()},
    )  # fmt: skip


OFFER = replace(find_offers("rtx4090")[0], gpu_count=1)


def test_a_stale_price_says_how_old_it_is() -> None:
    ranking = choose(question(replace(OFFER, date="2026-09-06")))
    assert age_notes(ranking, date(2026, 11, 25)) == ["dated prices are up to 80 days old (from 2026-09-06)."]


def test_a_price_without_a_date_says_so() -> None:
    ranking = choose(question(replace(OFFER, date=None), replace(OFFER, date="2026-09-06", provider="other")))
    assert any(note.startswith("1 of 2 prices have no date") for note in age_notes(ranking, date(2026, 9, 7)))


@pytest.mark.parametrize(
    ("hours", "text"), [(0.02, "1.2 min"), (0.2, "12 min"), (3.44, "3.4 h"), (99, "99.0 h"), (240, "10.0 d")]
)
def test_how_long(hours: float, text: str) -> None:
    assert duration(hours) == text


def test_a_row_has_every_column() -> None:
    ranking = choose(question(OFFER))
    assert tuple(row_data(ranking, ranking.cheapest)) == COLUMNS


def test_choosing_loads_nothing_heavy() -> None:
    assert not loaded_by("choose", "--model", "0.6b", "--tokens", "50M", "--own", "rtx4090") & HEAVY
