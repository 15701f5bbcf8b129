"""Native Windows: planning works, and what needs Linux says so in one sentence."""

from __future__ import annotations

import os
import sys

import pytest
from cli_runner import refusal, run

import peftbench
from peftbench.base.errors import MeasureError
from peftbench.measure.doctor import _system


@pytest.fixture(autouse=True)
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what Python has on POSIX systems only."""
    monkeypatch.setattr(sys, "platform", "win32")
    for module in ("fcntl", "resource", "pwd", "grp"):
        monkeypatch.setitem(sys.modules, module, None)
    for name in ("getpgid", "getpgrp", "killpg", "getuid", "sysconf"):
        monkeypatch.delattr(os, name)


@pytest.mark.parametrize(
    "command",
    [
        "plan --model 8b --gpu t4",
        "plan --model 8b --gpu t4 --format json",
        "choose --model 8b --tokens 50M --own rtx4090",
        "recipe --model 1b --method qlora --gpu t4 --for axolotl",
        "run t4 --dry-run",
        "gpus",
    ],
)
def test_planning_works(command: str) -> None:
    result = run(*command.split())
    assert result.exit_code == 0 and result.stdout, result.stderr


def test_a_run_is_refused_in_one_sentence() -> None:
    text = refusal("run", "smoke")
    assert text.startswith("Error: runs cannot be measured on Windows itself.\n  Use Linux, or WSL on Windows.")


def test_a_dry_run_leaves_the_estimate(own_child: None) -> None:
    result = run("plan", "--model", "8b", "--gpu", "t4", "--method", "lora", "--dry-run", "--no-cache")
    said = " ".join(result.stdout.split())
    assert result.exit_code == 0 and "the real libraries are not run on Windows itself" in said, result.stderr


def test_a_run_of_python_is_refused_alike() -> None:
    with pytest.raises(MeasureError, match="cannot be measured on Windows itself"):
        peftbench.measure_training("llama-3.2-1b", device="cpu")


def test_doctor_names_the_system() -> None:
    found = _system()
    assert found.status == "limited" and "WSL" in found.remedy
