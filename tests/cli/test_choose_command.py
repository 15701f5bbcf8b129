"""`peftbench choose` as a shell sees it: its formats, its commands, and one message for each mistake."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
from pathlib import Path

import pytest

from tests.cli_runner import answer, refusal

CHOOSE = ("choose", "--model", "8b", "--tokens", "50M")
FEW = (*CHOOSE, "--gpu", "h100-sxm", "--gpu", "rtx4090")


def test_the_screen_has_what_a_buyer_looks_for() -> None:
    text = answer(*CHOOSE, "--own", "rtx4090", "--top", "3")
    for words in ("cheapest", "fastest", "best", "your rtx4090 can do it", "Rent or buy", "days old", "have no date"):
        assert words in text
    assert max(map(len, text.splitlines())) <= 80


def test_every_format_has_the_same_choices() -> None:
    data = json.loads(answer(*FEW, "--format", "json"))
    rows = list(csv.DictReader(io.StringIO(answer(*FEW, "--format", "csv"))))
    assert [int(row["number"]) for row in rows] == [choice["number"] for choice in data["choices"]]
    assert [float(row["usd"]) for row in rows] == [choice["usd"] for choice in data["choices"]]
    assert data["cheapest"] == 1
    assert "| cheapest" in answer(*FEW, "--format", "markdown")


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_the_command_of_a_row_prices_its_recipe(method: str) -> None:
    """On one card and on several, in several nodes too."""
    asked = (*FEW, "--method", method, "--sequence-length", "1024")
    choices = json.loads(answer(*asked, "--format", "json"))["choices"]
    rows = {choice["gpus"]: choice for choice in choices}
    assert len(rows) > 2
    for row in rows.values():
        text = answer(*asked, "--expand", str(row["number"]))
        command = shlex.split(next(line for line in text.splitlines() if line.startswith("  peftbench plan")))
        (plan,) = json.loads(answer(*command[1:], "--format", "json"))["plans"]
        for name in ("micro_batch_size", "gradient_accumulation_steps", "gradient_checkpointing", "gpus", "nodes"):
            assert plan["options" if "options" in plan else "recipe"][name] == row[name]
        assert plan["verdict"]["fit"] == "fits"
        assert plan["verdict"]["required_bytes"] == row["required_bytes"]
        assert plan["time"]["tokens_per_s"] == pytest.approx(row["tokens_per_s"])


@pytest.mark.parametrize("own", ["rtx3060", "rtx4090", "2xrtx3090"])
def test_the_plan_of_an_own_card_fits(own: str) -> None:
    (sentence,) = json.loads(answer(*CHOOSE, "--method", "full", "--own", own, "--format", "json"))["own"]
    command = shlex.split(sentence.partition("Its plan: peftbench ")[2])
    (plan,) = json.loads(answer(*command, "--format", "json"))["plans"]
    assert plan["verdict"]["fit"] == "fits"


def test_epochs_and_a_dataset(tmp_path: Path) -> None:
    path = tmp_path / "train.txt"
    path.write_text("word " * 100_000, encoding="utf-8")
    asked = ("choose", "--model", "8b", "--dataset", str(path), "--gpu", "rtx4090", "--format", "json")
    once, thrice = (json.loads(answer(*asked, *more)) for more in ((), ("--epochs", "3")))
    assert thrice["tokens"]["expected"] == pytest.approx(3 * once["tokens"]["expected"])
    assert thrice["choices"][0]["usd"] == pytest.approx(3 * once["choices"][0]["usd"])


def test_the_users_own_prices(tmp_path: Path) -> None:
    path = tmp_path / "prices.csv"
    path.write_text("gpu,usd_per_hour\nrtx4090,0.10\n", encoding="utf-8")
    from_file = json.loads(answer(*CHOOSE, "--prices", str(path), "--format", "json"))
    assert {choice["usd_per_hour"] for choice in from_file["choices"]} == {0.1}
    typed = json.loads(answer(*CHOOSE, "--gpu", "rtx5080", "--price", "0.5", "--format", "json"))
    assert {choice["usd_per_hour"] / choice["gpus"] for choice in typed["choices"]} == {0.5}


def test_spot_can_be_left_out() -> None:
    kinds = [
        {choice["kind"] for choice in json.loads(answer(*CHOOSE, *more, "--format", "json"))["choices"]}
        for more in ((), ("--no-spot",))
    ]
    assert kinds == [{"on-demand", "spot"}, {"on-demand"}]


def test_a_deadline_in_minutes_is_one_in_hours() -> None:
    hours, minutes = (answer(*FEW, "--deadline", text, "--format", "json") for text in ("1.5h", "90min"))
    assert hours == minutes


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (("--budget", "0.01"), "the cheapest is"),
        (("--deadline", "1min", "--gpu", "t4", "--method", "qlora"), "the fastest is"),
        (("--budget", "€40"), "no other currency"),
        (("--budget", "0"), "not an amount above 0"),
        (("--deadline", "-3h"), "not an amount above 0"),
        (("--deadline", "12"), "12h, 90min or 2d"),
        (("--price", "cheap", "--gpu", "t4"), "not an amount above 0"),
        (("--price", "1.2"), "--gpu rtx4090"),
        (("--price", "1.2", "--live-prices", "--gpu", "t4"), "exclude each other"),
        (("--purchase-price", "900"), "--gpu rtx4090"),
        (("--provider", "azzure"), "Did you mean azure?"),
        (("--gpu", "rtx5080"), "--price 1.20"),
        (("--gpu", "t5"), "Did you mean t4?"),
        (("--own", "rtx4091"), "Did you mean rtx4090?"),
        (("--own", "gb200"), "power"),
        (("--own", "3xrtx4090"), "--batch-size 63"),
        (("--method", "qlra"), "Did you mean qlora?"),
        (("--dataset", "x.txt"), "either --tokens or --dataset"),
        (("--prices", "none.csv"), "cannot read"),
        (("--expand", "99999"), "rows 1 to"),
        (("--max-gpus", "2", "--gpu", "h200", "--provider", "nebius", "--no-spot", "--expand", "999"), "rows 1 to"),
        (("--max-gpus", "1", "--gpu", "rtx5070"), "--max-gpus 4"),
        (("--sequence-length", "200000"), "max_position_embeddings"),
    ],
)
def test_a_mistake_gets_one_helpful_message(more: tuple[str, ...], expected: str) -> None:
    assert expected in refusal(*CHOOSE, *more)


@pytest.mark.parametrize("text", ["many", "0", "-5M", "nan", "inf", "5X", ""])
def test_what_is_no_number_of_tokens(text: str) -> None:
    assert re.search(r"not an amount above 0", refusal("choose", "--model", "8b", "--tokens", text))


@pytest.mark.parametrize(("text", "tokens"), [("50M", 5e7), ("1.5B", 1.5e9), ("200k", 2e5), ("1,000", 1e3)])
def test_how_tokens_are_written(text: str, tokens: float) -> None:
    data = json.loads(answer("choose", "--model", "8b", "--tokens", text, "--gpu", "h200", "--format", "json"))
    assert data["tokens"]["expected"] == pytest.approx(tokens)
