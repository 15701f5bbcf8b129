"""What `recipe` writes reads back with the bytes of what was asked, for every model and tool, or is refused."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from cli_runner import answer, refusal
from known_models import FEW
from random_questions import model_path
from round_trips import FILES, Trip, random_trip, trip

from peftbench.recipes.reading import read_files


def wrong(trips: list[Trip]) -> list[Trip]:
    return [each for each in trips if each.outcome not in ("equal", "refused")]


def test_the_ends_of_every_type_come_back_from_every_tool(tmp_path: Path) -> None:
    """Smallest and largest, with options by chance; half of the questions have one that no tool says: refused."""
    chance = random.Random(12)
    models = sorted(FEW)
    trips = [random_trip(chance, number, tmp_path, models) for number in range(len(models) * len(FILES))]
    assert wrong(trips) == []
    assert sum(each.outcome == "equal" for each in trips) > len(trips) / 3


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_many_recipes_come_back(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    assert wrong([random_trip(chance, number, tmp_path) for number in range(1000)]) == []


def test_what_a_tool_adds_unpriced_leaves_open_whether_it_fits(tmp_path: Path) -> None:
    """Axolotl's float32 norms without flash attention: the figures are those that were asked for."""
    asked = ["--model", "llama-7b", "--method", "full", "--gpu", "h100-sxm", "--no-autocast"]
    assert trip(asked, "axolotl", tmp_path).outcome == "equal"


@pytest.mark.parametrize("tool", FILES)
@pytest.mark.parametrize("model", ["gpt2", "opt-125m", "google/gemma-3-4b-it"])
def test_a_default_length_is_within_the_positions_of_the_model(model: str, tool: str, tmp_path: Path) -> None:
    assert trip(["--model", model, "--method", "lora"], tool, tmp_path).outcome == "equal"
    (file,) = tmp_path.iterdir()
    assert read_files([str(file)]).recipe.sequence_length == {"gpt2": 1024}.get(model, 2048)


def test_a_file_says_how_itself_is_run_and_planned(tmp_path: Path) -> None:
    path = tmp_path / "it's mine.yml"
    answer("recipe", "--model", "1b", "--for", "axolotl", "-o", str(path))
    named = "'" + str(path).replace("'", "'\"'\"'") + "'"
    first, second, *_ = path.read_text().splitlines()
    assert (first, second) == (
        f"# Written by peftbench. Run it: axolotl train {named}", f"# Plan it: peftbench plan --from {named}",
    )  # fmt: skip


def test_a_model_that_no_library_finds_is_refused(tmp_path: Path) -> None:
    path = Path(model_path("openai-community/gpt2", tmp_path)).rename(tmp_path / "mine.json")
    assert "is not named config.json" in refusal("recipe", "--model", str(path))


def test_what_a_plan_refuses_is_not_written() -> None:
    said = refusal("recipe", "--model", "microsoft/phi-4", "--target-modules", "q_proj")
    assert "has no module 'q_proj'" in said
