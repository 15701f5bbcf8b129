"""What users see: every screen is compared with tests/golden/; --update-golden rewrites them."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_runner import run

GOLDEN = Path(__file__).parent / "golden"
CHOOSE = "choose --model 8b --tokens 50M --prices tests/offers.csv"
SCREENS = {
    "plan/compare_methods.txt": "plan --model 8b --gpu t4",
    "plan/one_method_fits.txt": "plan --model 8b --gpu l4 --method qlora",
    "plan/one_method_tight.txt": "plan --model 8b --gpu l4 --method lora --sequence-length 3000",
    "plan/one_method_does_not_fit.txt": "plan --model 8b --gpu t4 --method qlora --sequence-length 8192",
    "plan/nothing_fits.txt": "plan --model 70b --gpu t4",
    "plan/all_cards.txt": "plan --model 8b",
    "plan/no_card.txt": "plan --model 0.6b --no-gpu",
    "plan/given_memory.txt": "plan --model 1b --gpu-memory 8GiB --method lora --target-modules q_proj",
    "plan/other_methods.txt": "plan --model 1b --gpu t4 --method ia3 --method oft --method prompt-tuning",
    "plan/largest_sequence.txt": "plan --model 8b --gpu l4 --method qlora --max sequence-length",
    "plan/largest_batch.txt": "plan --model 8b --gpu l4 --gpu a100-80gb --max micro-batch-size",
    "plan/explain.txt": "plan --model 8b --gpu l4 --method qlora --explain logits-and-loss",
    "plan/experts.txt": "plan --model 8x7b --gpu a100-80gb --method qlora",
    "plan/inference.txt": "plan --model 8b --gpu l4 --task inference",
    "plan/inference_merged.txt": "plan --model 8b --gpu l4 --task inference --adapter merged",
    "formats/plan.md": "plan --model 8b --gpu t4 --format markdown",
    "formats/plan.csv": "plan --model 8b --gpu t4 --format csv",
    "formats/plan.json": "plan --model 8b --gpu l4 --method lora --format json",
    "lists/models.txt": "models pythia",
    "lists/gpus.txt": "gpus",
    "lists/models.csv": "models pythia --format csv",
    "lists/gpus.md": "gpus --format markdown",
    "choose/ranking.txt": f"{CHOOSE} --own rtx4090 --top 5",
    "choose/limits.txt": f"{CHOOSE} --budget 4 --deadline 4h --top 3",
    "choose/own.txt": f"{CHOOSE} --method full --own 2xrtx3090 --top 2",
    "choose/row.txt": f"{CHOOSE} --expand 1 --framework unsloth",
    "choose/ranking.md": f"{CHOOSE} --top 3 --format markdown",
    "choose/ranking.csv": f"{CHOOSE} --method qlora --max-gpus 1 --format csv",
    "choose/ranking.json": f"{CHOOSE} --gpu rtx4090 --format json",
    "help/choose.txt": "choose --help",
    "help/help.txt": "--help",
    "help/plan.txt": "plan --help",
}


@pytest.mark.parametrize("name", SCREENS)
def test_a_screen_looks_as_it_did(name: str, update_golden: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(GOLDEN.parents[1])  # commands name files from the repository's root
    result = run(*SCREENS[name].split())
    assert result.exit_code == 0, result.output
    screen = f"$ peftbench {SCREENS[name]}\n{result.stdout}" if name.endswith(".txt") else result.stdout
    if update_golden:
        (GOLDEN / name).write_text(screen, encoding="utf-8")
    assert screen == (GOLDEN / name).read_text(encoding="utf-8"), "look at it, then pytest --update-golden"


def test_no_golden_file_is_left_over() -> None:
    assert {f"{path.parent.name}/{path.name}" for path in GOLDEN.glob("*/*")} == set(SCREENS)


@pytest.mark.parametrize("name", [name for name in SCREENS if name.endswith(".txt")])
def test_no_line_is_wider_than_the_terminal(name: str) -> None:
    lines = (GOLDEN / name).read_text(encoding="utf-8").splitlines()[1:]
    assert max(map(len, lines)) <= 80
    assert not any(line != line.rstrip() for line in lines)
