"""Advice that is typed leads to exactly what was printed: bytes and verdict of every change, by chance and by hand."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest
from calibrated_runs import VERSIONS, card_runs, write_runs
from cli_runner import answer, refusal, run
from random_questions import Questions
from typed_advice import Typed, advice_of
from typed_rows import random_ranking, rows_of

import peftbench
from peftbench.decide import calibrated
from peftbench.records.calibration import minor


def typed_of(seed: int, questions: int, folder: Path, ways: int) -> list[Typed]:
    asked = Questions(seed, folder)
    return [typed for _ in range(questions) for typed in advice_of(asked.next(), ways)]


def test_the_advice_of_random_plans_holds(tmp_path: Path) -> None:
    """Two of three questions can be answered, and half of those have advice."""
    typed = typed_of(12, 200, tmp_path, ways=1)
    assert [each for each in typed if each.problem] == []
    assert len(typed) > 180 and {each.kind for each in typed} == {"command", "screen", "count", "longest"}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_the_advice_of_many_random_plans_holds(seed: int, tmp_path: Path) -> None:
    assert [each for each in typed_of(seed, 400, tmp_path, ways=3) if each.problem] == []


@pytest.mark.parametrize(
    "question",
    [
        "--model meta-llama/Llama-3.3-70B-Instruct --gpu a100-40gb --method lora --sequence-length 64 "
        "--micro-batch-size 2 --padded",
        "--model codellama/CodeLlama-34b-hf --gpu a10 --method lora --r 64 --use-dora --micro-batch-size 3 "
        "--fused-kernels liger --gpus 16 --parallel fsdp-grad-op --cpu-offload",
        "--model 30b --gpu a100-40gb --r 64 --quant-type int8",
        "--model gpt2 --gpu-memory 1.5GiB --method full --method prompt-tuning",
        "--model 8b --gpu rtx3090 --method lora --gpus 2 --nodes 2 --sequence-length 16384",
    ],
)
def test_advice_that_was_wrong_holds(question: str) -> None:
    """The adapter's rank and dtype, options of other methods, lengths that several methods share, and nodes."""
    typed = advice_of(["plan", *question.split()])
    assert typed and [each for each in typed if each.problem] == []


def test_a_file_of_an_adapter_stays_in_the_command(tmp_path: Path) -> None:
    path = tmp_path / "it's mine.json"
    path.write_text(json.dumps({"peft_type": "LORA", "r": 300, "target_modules": ["q_proj", "v_proj"]}))
    question = ["plan", "--model", "8b", "--gpu", "l4", "--adapter-config", str(path)]
    (plan,) = json.loads(answer(*question, "--format", "json"))["plans"]
    assert plan["changes"] and not any("--r" in change["arguments"] for change in plan["changes"])
    assert [each for each in advice_of(question) if each.problem] == []


def test_a_default_length_leaves_room_for_the_tokens_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "prefix.json"
    for number in (20, 300):
        path.write_text(json.dumps({"peft_type": "PREFIX_TUNING", "num_virtual_tokens": number}))
        asked = ("plan", "--model", "gpt2", "--gpu", "t4", "--adapter-config", str(path), "--format", "json")
        assert json.loads(answer(*asked))["plans"][0]["recipe"]["sequence_length"] == 1024 - number
        assert json.loads(answer(*asked, "--task", "inference"))["plans"][0]["recipe"]["prompt_tokens"] == 768 - number


def test_what_is_typed_in_python_leads_to_the_change() -> None:
    for method, recipe in (
        ("full", {"micro_batch_size": 6}),
        ("lora", {"r": 64, "adapter_options": {"lora_bias": True}, "sequence_length": 8192}),
        ("LoRA", {"adapter_dtype": "bfloat16", "gpus": 2, "nodes": 2, "micro_batch_size": 12}),
    ):
        plan = peftbench.plan("8b", "rtx3090", method, **recipe)
        assert plan.changes
        for change in plan.changes:
            typed = {"method": method, **recipe, **change.options}
            assert peftbench.plan("8b", "rtx3090", **typed).verdict == change.verdict


# ── rankings ────────────────────────────────────────────────────────────────────────────────────────────────────────


def ranked(seed: int, questions: int, rows: int) -> list[Typed]:
    chance = random.Random(seed)
    return [typed for _ in range(questions) for typed in rows_of(random_ranking(chance), chance, rows)]


def test_the_rows_of_random_rankings_hold() -> None:
    typed = ranked(12, 15, 8)
    assert [each for each in typed if each.problem] == [] and len(typed) > 50


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_the_rows_of_many_random_rankings_hold(seed: int) -> None:
    assert [each for each in ranked(seed, 60, 20) if each.problem] == []


CHOOSE = ["choose", "--model", "1b", "--tokens", "10M", "--method", "lora"]


def test_a_file_of_an_adapter_stays_in_the_commands_of_a_ranking(tmp_path: Path) -> None:
    """PEFT's own target modules, which no option can name."""
    path = tmp_path / "its own.json"
    path.write_text(json.dumps({"peft_type": "LORA", "r": 300}))
    typed = list(rows_of([*CHOOSE, "--adapter-config", str(path)], random.Random(1)))
    assert len(typed) == 20 and [each for each in typed if each.problem] == []


def test_a_file_of_an_adapter_rules_out_another_rank_on_ones_own_card(tmp_path: Path) -> None:
    path = tmp_path / "large.json"
    path.write_text(json.dumps({"peft_type": "LORA", "r": 300, "target_modules": "all-linear"}))
    for own in ("rtx3090", "t4"):
        question = ["choose", "--model", "8b", "--tokens", "10M", "--own", own, "--gpu", "b200"]
        typed = list(rows_of([*question, "--adapter-config", str(path)], random.Random(1)))
        assert "own" in {each.kind for each in typed} and [each for each in typed if each.problem] == []


def test_a_calibration_stays_with_its_card(tmp_path: Path) -> None:
    here = calibrated.installed()
    if any(here.get(name, minor(version)) != minor(version) for name, version in VERSIONS.items()):
        pytest.skip("other libraries are installed than the runs are of")
    runs, file = write_runs(tmp_path / "results" / "l4.jsonl", card_runs()), tmp_path / "l4 of mine.json"
    assert run("calibrate", str(runs), "--output", str(file)).exit_code == 0
    prices = tmp_path / "my prices.csv"
    prices.write_text("gpu,usd_per_hour\nl4,0.5\na10,0.4\n")
    question = [*CHOOSE, "--calibration", str(file), "--prices", str(prices)]
    typed = list(rows_of(question, random.Random(1)))
    assert len(typed) == 2 and [each for each in typed if each.problem] == []
    alone = ["plan", "--model", "8b", "--gpu", "l4", "--method", "lora", "--calibration", str(file)]
    assert advice_of(alone) and [each for each in advice_of(alone) if each.problem] == []


@pytest.mark.parametrize("limits", ["--budget 0.3", "--deadline 5min", "--budget 1.25 --deadline 20min"])
def test_a_limit_that_is_raised_as_told_is_enough(limits: str) -> None:
    question = ["choose", "--model", "8b", "--tokens", "50M", *limits.split()]
    told = re.findall(r"(--\w+) to ([0-9.]+(?:min)?)\b", refusal(*question).splitlines()[-1])
    assert told
    for option, value in told:
        assert "cheapest" in answer(*question, option, value)


def test_two_limits_that_are_both_too_low_are_raised_together() -> None:
    question = ["choose", "--model", "8b", "--tokens", "50M", "--budget", "0.3", "--deadline", "20min"]
    told = re.findall(r"(--\w+) to ([0-9.]+(?:min)?)\b", refusal(*question).splitlines()[-1])
    assert [option for option, _ in told] == ["--budget", "--deadline"]
    assert "cheapest" in answer(*question, *(word for each in told for word in each))
