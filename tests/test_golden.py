"""What users see: every screen is compared with tests/golden/; --update-golden rewrites them."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_runner import run

GOLDEN = Path(__file__).parent / "golden"
SCREENS = {
    "compare_methods.txt": "plan --model 8b --gpu t4",
    "one_method_fits.txt": "plan --model 8b --gpu l4 --method qlora",
    "one_method_tight.txt": "plan --model 8b --gpu l4 --method lora --sequence-length 3000",
    "one_method_does_not_fit.txt": "plan --model 8b --gpu t4 --method qlora --sequence-length 8192",
    "nothing_fits.txt": "plan --model 70b --gpu t4",
    "all_cards.txt": "plan --model 8b",
    "no_card.txt": "plan --model 0.6b --no-gpu",
    "given_memory.txt": "plan --model 1b --gpu-memory 8GiB --method lora --target-modules q_proj",
    "other_methods.txt": "plan --model 1b --gpu t4 --method ia3 --method oft --method prompt-tuning",
    "largest_sequence.txt": "plan --model 8b --gpu l4 --method qlora --max sequence-length",
    "largest_batch.txt": "plan --model 8b --gpu l4 --gpu a100-80gb --max micro-batch-size",
    "explain.txt": "plan --model 8b --gpu l4 --method qlora --explain logits-and-loss",
    "experts.txt": "plan --model 8x7b --gpu a100-80gb --method qlora",
    "inference.txt": "plan --model 8b --gpu l4 --task inference",
    "inference_merged.txt": "plan --model 8b --gpu l4 --task inference --adapter merged",
    "plan.md": "plan --model 8b --gpu t4 --format markdown",
    "plan.csv": "plan --model 8b --gpu t4 --format csv",
    "plan.json": "plan --model 8b --gpu l4 --method lora --format json",
    "models.txt": "models",
    "gpus.txt": "gpus",
    "models.csv": "models --format csv",
    "gpus.md": "gpus --format markdown",
    "choose.txt": "choose --model 8b --tokens 50M --prices tests/offers.csv --own rtx4090 --top 5",
    "choose_limits.txt": "choose --model 8b --tokens 50M --prices tests/offers.csv --budget 4 --deadline 4h --top 3",
    "choose_own.txt": "choose --model 8b --tokens 50M --prices tests/offers.csv --method full --own 2xrtx3090 --top 2",
    "choose_row.txt": "choose --model 8b --tokens 50M --prices tests/offers.csv --expand 1 --framework unsloth",
    "choose.md": "choose --model 8b --tokens 50M --prices tests/offers.csv --top 3 --format markdown",
    "choose.csv": "choose --model 8b --tokens 50M --prices tests/offers.csv --method qlora --max-gpus 1 --format csv",
    "choose.json": "choose --model 8b --tokens 50M --prices tests/offers.csv --gpu rtx4090 --format json",
    "help_choose.txt": "choose --help",
    "help.txt": "--help",
    "help_plan.txt": "plan --help",
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
    assert {path.name for path in GOLDEN.iterdir()} == set(SCREENS)


@pytest.mark.parametrize("name", [name for name in SCREENS if name.endswith(".txt")])
def test_no_line_is_wider_than_the_terminal(name: str) -> None:
    lines = (GOLDEN / name).read_text(encoding="utf-8").splitlines()[1:]
    assert max(map(len, lines)) <= 80
    assert not any(line != line.rstrip() for line in lines)
