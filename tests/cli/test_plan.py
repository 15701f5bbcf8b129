"""`peftbench plan` as a shell sees it: exit codes, formats, pipes, and the Python function beside it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_runner import answer, refusal, run

import peftbench

PLAN = ("plan", "--model", "8b", "--gpu", "t4")


def shell(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """A real process, its output in a pipe."""
    root = str(Path(peftbench.__file__).parents[1])
    return subprocess.run(
        [sys.executable, "-m", "peftbench", *arguments],
        capture_output=True, env={**os.environ, "PYTHONPATH": root, **environment},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "code"),
    [((*PLAN, "--check"), 0), ((*PLAN, "--method", "full", "--check"), 1), ((*PLAN, "--method", "full"), 0)],
)
def test_check_answers_no_with_1(arguments: tuple[str, ...], code: int) -> None:
    assert run(*arguments).exit_code == code


def test_a_pipe_gets_plain_text_and_nothing_on_stderr() -> None:
    done = shell(*PLAN)
    assert done.returncode == 0 and done.stderr == b"" and b"\x1b" not in done.stdout
    assert "█".encode() in done.stdout


def test_a_stream_in_ascii_gets_ascii() -> None:
    done = shell(*PLAN, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert done.returncode == 0 and b"#" in done.stdout
    assert done.stdout.isascii()
    assert shell("gpus", PYTHONIOENCODING="ascii", PYTHONUTF8="0").stdout.isascii()


def test_a_reader_that_leaves_is_no_error() -> None:
    root = str(Path(peftbench.__file__).parents[1])
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "peftbench", *PLAN], stdout=writing, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": root},
    )  # fmt: skip
    os.close(writing)
    assert done.stderr == b""


def redirected(to: str) -> subprocess.CompletedProcess[str]:
    """A real process whose output a shell sends somewhere."""
    command = shlex.join([sys.executable, "-m", "peftbench", *PLAN])
    root = str(Path(peftbench.__file__).parents[1])
    return subprocess.run(
        f"{command} {to}", shell=True, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": root}
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a full device")
def test_a_full_disk_gets_one_message() -> None:
    done = redirected("> /dev/full")
    assert done.returncode == 2
    assert done.stderr.startswith("Error: cannot write the answer: No space left on device")


def test_a_closed_stdout_is_no_error() -> None:
    done = redirected(">&-")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("columns", ["60", "200"])
def test_the_terminal_decides_the_width_up_to_80(columns: str) -> None:
    lines = shell(*PLAN, COLUMNS=columns).stdout.decode().splitlines()
    prose = [line for line in lines if line.startswith(("note", "next", "trains", "allocated", "sequence"))]
    assert max(map(len, lines)) <= 80
    assert max(map(len, prose)) <= int(columns)


def test_json_has_a_plan_for_each_method_and_card() -> None:
    document = json.loads(answer(*PLAN, "--gpu", "l4", "--format", "json"))
    assert [(p["gpu"]["name"], p["method"]) for p in document["plans"]] == [
        (gpu, method) for gpu in ("t4", "l4") for method in ("full", "lora", "qlora")
    ]
    alone = json.loads(answer("plan", "--model", "8b", "--no-gpu", "--format", "json"))
    assert [p["gpu"] for p in alone["plans"]] == [None] * 3


def test_the_command_that_is_suggested_fits() -> None:
    screen = answer(*PLAN, "--method", "qlora", "--sequence-length", "8192", "--no-double-quant")
    words = screen[screen.index("  peftbench plan") :].replace("\\\n", " ").split()
    assert {"--no-double-quant", "--method"} <= set(words)
    assert run(*words[1:], "--check").exit_code == 0
    document = json.loads(answer(*words[1:], "--format", "json"))
    assert document["plans"][0]["verdict"]["fit"] == "fits"


LONGEST = ("--max", "sequence-length", "--format", "json")


def maxima(*words: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run(*words, *LONGEST).stdout)["maxima"]
    return found


def test_the_largest_value_fits_and_the_expected_one_stands_beside_it() -> None:
    (found,) = maxima(*PLAN, "--method", "qlora")
    step = 128
    for length, words in ((found["fits"], ["fits"]), (found["fits"] + step, ["tight"]), (found["expected"], ["tight"]),
                          (found["expected"] + step, ["risky", "does_not_fit"])):  # fmt: skip
        asked = (*PLAN, "--method", "qlora", "--sequence-length", str(length), "--format", "json")
        assert json.loads(answer(*asked))["plans"][0]["verdict"]["fit"] in words
    screen = answer(*PLAN, "--method", "qlora", "--max", "sequence-length")
    assert screen.startswith(f"fits: qlora on t4 at --sequence-length {found['fits']} needs ")
    assert f"{found['fits']} ({found['expected']})" in screen


def test_the_positions_of_the_model_end_the_search_and_more_is_shown_where_it_rotates() -> None:
    (found,) = maxima("plan", "--model", "pythia-160m", "--gpu", "h200", "--method", "lora")
    assert found["fits"] == found["positions"] == 2048 < found["beyond_positions"]
    shown = answer("plan", "--model", "pythia-160m", "--gpu", "h200", "--method", "lora", *LONGEST[:2])
    assert f"With scaled positions (RoPE) {found['beyond_positions']:,} tokens" in " ".join(shown.split())


@pytest.mark.parametrize("format_", ["csv", "jsonl", "markdown"])
def test_the_largest_value_is_in_other_formats(format_: str) -> None:
    shown = answer(*PLAN, "--method", "qlora", *LONGEST[:3], format_)
    assert str(maxima(*PLAN, "--method", "qlora")[0]["fits"]) in shown


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--sequence-length", "512", "--check"), 0),
        (("--sequence-length", "512", "--check", "fits"), 0),
        (("--sequence-length", "2560", "--check"), 0),
        (("--sequence-length", "2560", "--check", "fits"), 1),
        (("--sequence-length", "3000", "--check"), 1),
        (("--sequence-length", "3000", "--check", "risky"), 0),
        (("--sequence-length", "8192", "--check", "risky"), 1),
    ],
)
def test_check_takes_the_word_that_it_accepts(words: tuple[str, ...], code: int) -> None:
    assert run(*PLAN, "--method", "qlora", *words).exit_code == code


def test_defaults_are_shown_and_shortened_to_the_model() -> None:
    assert "sequence 1024 · micro-batch 1" in answer("plan", "--model", "gpt2", "--gpu", "t4")
    assert "2048 tokens" in refusal("plan", "--model", "gpt2", "--gpu", "t4", "--sequence-length", "2048")


def test_virtual_tokens_take_positions_of_the_model() -> None:
    assert "sequence 1004" in run("plan", "--model", "gpt2", "--gpu", "t4", "--method", "prompt-tuning").stdout
    (longest,) = maxima("plan", "--model", "gpt2", "--gpu", "t4", "--method", "p-tuning")
    assert longest["fits"] == longest["positions"] == 1004
    shown = " ".join(answer("plan", "--model", "llama-2-7b", "--gpu", "h200", "--method", "p-tuning").split())
    assert "up to --sequence-length 4076, all positions of the model" in shown


def test_nothing_that_fits_is_exit_1() -> None:
    result = run("plan", "--model", "70b", "--gpu", "t4", "--method", "full", "--max", "sequence-length")
    assert result.exit_code == 1
    assert result.stdout.startswith("does not fit: full on t4 at --sequence-length 1 needs ")


def test_the_recipe_over_many_cards_is_that_of_cards_with_bfloat16() -> None:
    shown = run("plan", "--model", "0.6b", "--gpu", "t4", "--gpu", "l4", "--max", "micro-batch-size").stdout
    assert "bfloat16 autocast" in shown and "float16 autocast" not in shown.replace("bfloat16", "")
    assert "t4: no bfloat16" in shown


def test_options_reach_the_recipe() -> None:
    typed = (
        "--r 8 --target-modules q_proj,v_proj --use-dora --zero-grad keep --loop plain --no-autocast "
        "--adapter-dtype bfloat16 --blocksize 128 --dtype float16"
    )
    words = typed.split()
    document = json.loads(
        answer("plan", "--model", "8b", "--gpu", "l4", "--method", "qlora", *words, "--format", "json")
    )
    recipe = document["plans"][0]["recipe"]
    expected = {
        "r": 8,
        "target_modules": ["q_proj", "v_proj"],
        "use_dora": True,
        "zero_grad": "keep",
        "loop": "plain",
        "autocast": False,
        "adapter_dtype": "bfloat16",
        "blocksize": 128,
        "compute_dtype": "float16",
    }
    assert {name: recipe[name] for name in expected} == expected


def test_cards_that_cannot_run_it_are_named() -> None:
    screen = answer("plan", "--model", "8b", "--method", "lora", "--attention", "flash_attention_2")
    assert "t4 is left out" in screen.replace("\n      ", " ")


def test_the_card_of_this_machine_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "--gpu-memory 16GiB" in refusal("plan", "--model", "8b", "--gpu", "local")


def test_python_gives_the_same_plan() -> None:
    plan = peftbench.plan("8b", "t4", method="qlora", sequence_length=4096)
    words = (*PLAN, "--method", "qlora", "--sequence-length", "4096", "--format", "json")
    memory = json.loads(answer(*words))["plans"][0]["memory"]
    assert plan.profile.device_bytes == memory["device_bytes"]


def test_python_refuses_unknown_options() -> None:
    with pytest.raises(peftbench.SpecError, match="Did you mean sequence_length"):
        peftbench.plan("8b", sequence_len=4)
    with pytest.raises(AttributeError):
        _ = peftbench.nothing


def test_every_public_name_exists() -> None:
    for name in set(dir(peftbench)) - {"__version__"}:
        assert getattr(peftbench, name) is not None
