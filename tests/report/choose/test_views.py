"""What a ranking says beside its figures: how old prices are, how long is a time, and what choosing loads."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest
from test_architecture import HEAVY, loaded_by

from peftbench.catalog.gpus import list_gpus
from peftbench.catalog.models import find_model
from peftbench.catalog.prices import Offer, find_offers
from peftbench.decide.choose.ranking import Question, choose
from peftbench.decide.from_options import training_recipes
from peftbench.estimate.time.cost import Band
from peftbench.report.choose.own import Typed, hours_band, usd_band
from peftbench.report.choose.views import Answer, age_notes, row_data


def question(*offers: Offer) -> Question:
    return Question(
        model=find_model("0.6b"), recipes=training_recipes(("lora",), {}), tokens=Band(1e6, 1e6, 1e6), sequences=8,
        offers=offers, max_gpus=1, cards={gpu.name: gpu for gpu in list_gpus()},
    )  # fmt: skip


COLUMNS = (
    "number", "gpu", "gpus", "nodes", "strategy", "method", "micro_batch_size", "gradient_accumulation_steps",
    "gradient_checkpointing", "hours", "hours_low", "hours_high", "usd", "usd_low", "usd_high", "usd_per_hour",
    "tokens_per_s", "calibrated", "required_bytes", "high_bytes", "usable_bytes", "provider", "instance_type", "kind",
    "region", "date", "source", "on_front", "cpu_offload", "host_bytes", "command",
)  # fmt: skip
OFFER = replace(find_offers("rtx4090")[0], gpu_count=1)


def test_a_stale_price_says_how_old_it_is() -> None:
    ranking = choose(question(replace(OFFER, date="2026-09-06")))
    assert age_notes(ranking, date(2026, 11, 25)) == ["dated prices are up to 80 days old (from 2026-09-06)."]


def test_a_price_without_a_date_says_so() -> None:
    ranking = choose(question(replace(OFFER, date=None), replace(OFFER, date="2026-09-06", provider="other")))
    assert any(note.startswith("1 of 2 prices have no date") for note in age_notes(ranking, date(2026, 9, 7)))


@pytest.mark.parametrize(
    ("low", "high", "text"), [(3.14, 5, "3.1-5.0 h"), (0.75, 1.2, "45 min-1.2 h"), (99, 240, "99.0 h-10.0 d")]
)
def test_a_band_of_time_names_a_unit_once(low: float, high: float, text: str) -> None:
    assert hours_band(Band(low, low, high)) == text
    assert usd_band(Band(1, 0.042, 1234.5)) == "0.042-1,234.50"


def test_a_row_has_every_column() -> None:
    asked = question(OFFER)
    ranking = choose(asked)
    answer = Answer(asked, Typed("0.6b"), ranking, "given", (), (), 0.15, date(2026, 11, 25))
    assert tuple(row_data(answer, ranking.cheapest)) == COLUMNS, "frozen: new names come at the end"


def test_choosing_loads_nothing_heavy() -> None:
    assert not loaded_by("choose", "--model", "0.6b", "--tokens", "50M", "--own", "rtx4090") & HEAVY
