"""`peftbench choose` as a shell sees it: its formats, its commands, and one message for each mistake."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from cli_runner import answer, refusal
from click.testing import CliRunner

from peftbench.cli import main

CHOOSE = ("choose", "--model", "8b", "--tokens", "50M")
FEW = (*CHOOSE, "--gpu", "h100-sxm", "--gpu", "rtx4090")


def test_the_screen_has_what_a_buyer_looks_for() -> None:
    text = answer(*CHOOSE, "--own", "rtx4090", "--top", "3")
    for words in ("cheapest", "fastest", "best", "your rtx4090 can do it", "Rent or buy", "days old", "have no date"):
        assert words in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("columns", [60, 75, 80])
def test_a_narrow_terminal_leaves_out_the_bands(columns: int) -> None:
    result = CliRunner().invoke(main, FEW, prog_name="peftbench", env={"COLUMNS": str(columns), "NO_COLOR": "1"})
    first, _, _ = result.stdout.partition("Nothing is both")
    assert max(map(len, first.splitlines())) <= columns
    assert ("from-to" in first) == (columns > 60)


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
        (plan,) = json.loads(answer(*expanded(asked, row["number"]), "--format", "json"))["plans"]
        for name in ("micro_batch_size", "gradient_accumulation_steps", "gradient_checkpointing", "gpus", "nodes"):
            assert plan["options" if "options" in plan else "recipe"][name] == row[name]
        check_same(plan, row)
        assert shlex.split(row["command"])[1:] == expanded(asked, row["number"])


def expanded(asked: tuple[str, ...], number: int) -> list[str]:
    """The arguments of the command that the plan of a row ends with."""
    _, _, command = answer(*asked, "--expand", str(number)).rpartition("  peftbench ")
    return shlex.split(command.replace("\\\n", " "))


def check_same(plan: dict[str, Any], row: dict[str, Any]) -> None:
    """The plan of a row has its memory and its speed, to the last digit."""
    assert plan["verdict"]["fit"] == "fits"
    assert plan["verdict"]["required_bytes"] == row["required_bytes"]
    assert plan["time"]["tokens_per_s"] == row["tokens_per_s"]


OPTIONS = (
    "--framework unsloth --gpu a100-80gb",
    "--method lora --r 64 --target-modules q_proj,v_proj --optimizer adamw_bnb_8bit --attention eager --gpu l40s",
    "--method oft --adapter-option oft_block_size=64 --padded --gpu a100-80gb",
    "--method qlora --quant-type int8 --no-upcast-unquantized --gpu l4",
    "--method full --cpu-offload --gpu h100-sxm --max-gpus 8",
    "--method lora --parallel zero3 --dtype float16 --gpu a100-80gb",
    "--method prefix-tuning --gpu l40s",
)


@pytest.mark.parametrize("options", OPTIONS)
def test_the_options_of_plan_are_priced_and_repeated(options: str) -> None:
    """The dearest row, which is on the most cards."""
    asked = (*CHOOSE, *options.split())
    row = json.loads(answer(*asked, "--format", "json"))["choices"][-1]
    (plan,) = json.loads(answer(*expanded(asked, row["number"]), "--format", "json"))["plans"]
    check_same(plan, row)


@pytest.mark.slow
@pytest.mark.parametrize("options", ["", "--cpu-offload", "--framework torchtune --own 2xrtx3090"])
def test_the_command_of_every_row_prices_its_recipe(options: str) -> None:
    """Once for each recipe on each number of cards, whoever offers them; the row's plan ends with the same command."""
    asked = (*CHOOSE, *options.split())
    rows = json.loads(answer(*asked, "--format", "json"))["choices"]
    different = {row["command"]: row for row in rows}
    assert len(different) > 100
    for command, row in different.items():
        (plan,) = json.loads(answer(*shlex.split(command)[1:], "--format", "json"))["plans"]
        check_same(plan, row)


def test_an_option_reaches_the_methods_that_it_concerns() -> None:
    """A rank is of LoRA and QLoRA, not of full fine-tuning."""
    asked = (*CHOOSE, "--gpu", "h200", "--max-gpus", "1")
    small, large = (json.loads(answer(*asked, "--r", r, "--format", "json"))["choices"] for r in ("8", "256"))
    needs = {(row["method"], row["instance_type"], row["provider"]): row["tokens_per_s"] for row in small}
    for row in large:
        before = needs[row["method"], row["instance_type"], row["provider"]]
        assert row["tokens_per_s"] == before if row["method"] == "full" else row["tokens_per_s"] < before


def test_setup_is_paid_for_rented_cards_alone() -> None:
    asked = (*FEW, "--own", "rtx4090", "--format", "json")
    rows = [json.loads(answer(*asked, "--setup", setup))["choices"] for setup in ("0", "1h")]
    names = ("gpu", "gpus", "provider", "kind", "method")
    without, with_setup = ({tuple(row[name] for name in names): row for row in each} for each in rows)
    assert without.keys() == with_setup.keys()
    for key, row in without.items():
        waited = 0 if row["kind"] == "own" else 1
        assert with_setup[key]["hours"] == pytest.approx(row["hours"] + waited)
        assert with_setup[key]["usd"] == pytest.approx(with_setup[key]["hours"] * row["usd_per_hour"])


def test_markdown_notes_with_a_star_are_no_lists() -> None:
    text = answer(*CHOOSE, "--gpu", "l4", "--format", "markdown")
    assert "* \\* uncalibrated: no steps on l4 published" in text


@pytest.mark.parametrize("own", ["rtx3060", "rtx4090", "2xrtx3090"])
def test_the_plan_of_an_own_card_fits(own: str) -> None:
    sentences = json.loads(answer(*CHOOSE, "--method", "full", "--own", own, "--format", "json"))["own"]
    assert any("--cpu-offload: full in" in sentence for sentence in sentences)
    for sentence in sentences:
        command = shlex.split(sentence.partition("Its plan: peftbench ")[2])
        (plan,) = json.loads(answer(*command, "--format", "json"))["plans"]
        assert plan["verdict"]["fit"] == "fits"


def test_own_cards_are_told_of_where_no_offer_fits() -> None:
    text = refusal(*CHOOSE, "--method", "full", "--gpu", "rtx5090", "--max-gpus", "1", "--own", "rtx4090")
    assert "no offer fits" in text and "smallest change to full: --method lora" in text


def test_own_cards_may_be_more_than_are_rented_and_are_listed_once() -> None:
    asked = ("--own", "16xrtx4090", "--own", "16 x rtx4090", "--gpu", "rtx4090", "--max-gpus", "1")
    data = json.loads(answer(*CHOOSE, *asked, "--format", "json"))
    assert len(data["own"]) == 1
    owned = [(row["gpus"], row["method"]) for row in data["choices"] if row["kind"] == "own"]
    assert owned and len(owned) == len(set(owned)) and {gpus for gpus, _ in owned} == {16}


def test_a_large_model_on_two_small_cards_needs_the_memory_of_the_host() -> None:
    """70B QLoRA on 2 × 24 GB is what answer.ai showed with FSDP and CPU offload: 35 GB of codes on the host."""
    asked = ("choose", "--model", "70b", "--tokens", "50M", "--method", "qlora", "--own", "2xrtx3090")
    (sentence,) = json.loads(answer(*asked, "--format", "json"))["own"]
    assert "with --cpu-offload: qlora in" in sentence


def test_epochs_and_a_dataset(tmp_path: Path) -> None:
    path = tmp_path / "train.txt"
    path.write_text("word " * 100_000, encoding="utf-8")
    asked = ("choose", "--model", "8b", "--dataset", str(path), "--gpu", "rtx4090", "--setup", "0", "--format", "json")
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
        (("--deadline", "1s", "--gpu", "t4", "--method", "qlora"), "nothing is within 1 s: the fastest is"),
        (("--setup", "-1h"), "from 0 on"),
        (("--expand", "1", "--format", "json"), "only written for the terminal"),
        (("--price", "1", "--gpu", "t4", "--provider", "aws"), "--provider"),
        (("--prices", ""), "cannot read"),
        (("--parallel", "ddp", "--cpu-offload"), "it shards nothing"),
        (("--optimizer", "adamww"), "Did you mean adamw"),
        (("--target-modules", "nope"), "no module 'nope'"),
        (("--method", "full", "--r", "8"), "--r has no effect with full"),
        (("--micro-batch-size", "4"), "No such option"),
        (("--gpu", "p100-16gb", "--price", "1"), "the rates of p100-16gb are not known"),
        (("--method", "full", "--gpu", "rtx4090"), "--method qlora or --cpu-offload"),
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
        (("--model", "gpt2", "--sequence-length", "2000"), "2000 tokens"),
    ],
)
def test_a_mistake_gets_one_helpful_message(more: tuple[str, ...], expected: str) -> None:
    assert expected in refusal(*CHOOSE, *more)


@pytest.mark.parametrize("text", ["many", "0", "0.5", "-5M", "nan", "inf", "5X", ""])
def test_what_is_no_number_of_tokens(text: str) -> None:
    assert re.search(r"not an amount from 1 on", refusal("choose", "--model", "8b", "--tokens", text))


@pytest.mark.parametrize(("text", "tokens"), [("50M", 5e7), ("1.5B", 1.5e9), ("200k", 2e5), ("1,000", 1e3)])
def test_how_tokens_are_written(text: str, tokens: float) -> None:
    data = json.loads(answer("choose", "--model", "8b", "--tokens", text, "--gpu", "h200", "--format", "json"))
    assert data["tokens"]["expected"] == pytest.approx(tokens)
