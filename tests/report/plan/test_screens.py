"""Every answer begins with its word, the need and what is left, and a name stands for one size of a screen."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from cli_runner import answer

import peftbench
from peftbench.memory import Part
from peftbench.report.format.terminal import Style
from peftbench.report.plan.screens import headline
from peftbench.report.plan.views import _INFERENCE, _TRAINING

LINE = r"(fits|tight|risky|does not fit): (\S+) on .*needs [\d.]+ of [\d.]+ GiB( |,)"
ASKED = ("--model", "8b", "--gpu", "rtx4090")
QUESTIONS = (
    ("plan", *ASKED),
    ("plan", *ASKED, "--method", "lora"),
    ("plan", *ASKED, "--method", "qlora", "--sequence-length", "10000"),
    ("plan", *ASKED, "--method", "full", "--gpus", "2", "--parallel", "fsdp"),
    ("plan", "--model", "8b", "--method", "qlora"),
    ("plan", *ASKED, "--task", "inference", "--method", "lora"),
    ("plan", *ASKED, "--method", "lora", "--max", "sequence-length"),
    ("choose", "--model", "8b", "--tokens", "10M", "--gpu", "rtx4090"),
)


@pytest.mark.parametrize("question", QUESTIONS, ids=" ".join)
@pytest.mark.parametrize("format_", ["terminal", "markdown"])
def test_the_first_line_of_an_answer(question: tuple[str, ...], format_: str) -> None:
    text = answer(*question, "--format", format_)
    assert re.match(LINE, text.removeprefix("**"))
    if format_ == "terminal":
        assert max(map(len, text.splitlines())) <= 80


def test_the_first_line_without_a_card_and_from_python() -> None:
    assert answer("plan", "--model", "8b", "--no-gpu", "--method", "lora").startswith("no card: lora needs 20.")
    assert re.match(LINE, str(peftbench.plan("8b", "t4", "qlora")))


def test_only_the_word_of_the_first_line_is_coloured() -> None:
    plain, coloured = (headline("does not fit: it " + "x " * 60, Style(80, colour)) for colour in (False, True))
    assert coloured == plain.replace("does not fit", "\x1b[31mdoes not fit\x1b[0m", 1)


def sizes_of(screen: str) -> Iterator[tuple[str, str]]:
    """Names and GiB of the comparison's best row and of the breakdown."""
    lines = screen.splitlines()
    heading = next(line for line in lines if line.startswith("  GiB "))
    row = lines[lines.index(heading) + 1]
    yield from zip(heading.split()[1:], row.split()[1:], strict=False)
    yield from re.findall(r"^  (\w[\w ,]*?) {2,}(\d+\.\d\d)", screen[screen.index("GiB at the peak") :], re.MULTILINE)


def test_one_name_stands_for_one_size() -> None:
    found: dict[str, set[str]] = {}
    for name, size in sizes_of(answer("plan", "--model", "8b", "--gpu", "t4")):
        found.setdefault(name, set()).add(size)
    assert {"model", "weights", "needed"} <= found.keys()
    assert not {name: sizes for name, sizes in found.items() if len(sizes) > 1}


@pytest.mark.parametrize("groups", [_TRAINING, _INFERENCE])
def test_a_group_of_parts_has_a_name_of_its_own(groups: dict[str, frozenset[Part]]) -> None:
    for name, parts in groups.items():
        assert len(parts) == 1 or name not in {part.value for part in Part}
