"""Advice that is typed leads to exactly what was printed: bytes and verdict of every change, by chance and by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_runner import answer
from random_questions import Questions
from typed_advice import Typed, advice_of


def typed_of(seed: int, questions: int, folder: Path) -> list[Typed]:
    asked = Questions(seed, folder)
    return [typed for _ in range(questions) for typed in advice_of(asked.next())]


def test_the_advice_of_random_plans_holds(tmp_path: Path) -> None:
    """Some 200 of the questions can be answered; they have some 700 pieces of advice."""
    typed = typed_of(12, 300, tmp_path)
    assert [each for each in typed if each.problem] == []
    assert len(typed) > 500 and {each.kind for each in typed} >= {"command", "in place", "screen", "count", "longest"}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_the_advice_of_many_random_plans_holds(seed: int, tmp_path: Path) -> None:
    assert [each for each in typed_of(seed, 400, tmp_path) if each.problem] == []


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
