"""`peftbench run` as a user types it; what it runs is in tests/measure."""

import json
import re

import pytest
from click.testing import CliRunner
from run_records import TINY

from peftbench.cli import main


def run(*arguments):
    return CliRunner().invoke(main, ["run", *arguments])


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return tmp_path


@pytest.mark.parametrize("name", ["smoke", "t4", "batch-sweep", "peft-zoo", "generation"])
def test_a_dry_run_predicts_every_case_and_runs_none(name, elsewhere):
    result = run(name, "--dry-run")
    assert result.exit_code == 0, result.output
    assert max(map(len, result.stdout.splitlines())) <= 80 + 30  # the line that says what the suite is about
    assert not list(elsewhere.iterdir())


def test_what_will_not_fit_is_said():
    assert "does not fit" in run("sequence-sweep", "--dry-run").stdout
    assert re.search(r"qlora .* [1-9]\d* fits,\s+expected\s+\d+", run("batch-sweep", "--dry-run").stdout)
    fits = run("t4", "--dry-run").stdout
    assert "fits" in fits and "tight" in fits


def test_a_smaller_card_can_be_asked_for():
    assert "does not fit" not in run("methods-1b", "--dry-run").stdout
    assert "does not fit" in run("methods-1b", "--dry-run", "--memory-limit", "4GiB").stdout


def test_only_some_cases():
    out = run("t4", "--dry-run", "--only", "qlora-liger").stdout
    assert "3 cases" in out and "qlora-upcast" not in out
    assert "1 cases" in run("t4", "--dry-run", "--only", "qlora sequence_length=512").stdout


def test_a_case_without_a_formula_is_listed(elsewhere):
    model = json.dumps({**TINY, "model_type": "mamba"})
    (elsewhere / "mine.yaml").write_text(f"about: a\ndevice: cpu\nmodel: {model}\ncases: {{lora: {{}}}}\n")
    assert "no formula" in run("mine.yaml", "--dry-run").stdout


COMPARED = f"""about: a
kind: latency
device: cpu
model: {json.dumps(TINY)}
cases: {{base: {{weights: float32}}, nf4: {{weights: nf4}}, dynamic: {{weights: nf4, adapter: dynamic}}}}
"""


def test_variants_are_listed_before_they_are_compared(elsewhere):
    (elsewhere / "mine.yaml").write_text(COMPARED)
    out = run("mine.yaml", "--dry-run").stdout
    assert "3 variants" in out and "nf4/64 DQ" in out and out.count("KiB") + out.count("MiB") == 3
    for option in (("--only", "base"), ("--memory-limit", "1GiB")):
        refused = run("mine.yaml", *option)
        assert refused.exit_code == 2 and "which compares its cases" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("smok",), "Did you mean smoke?"),
        (("no/such.yaml",), "no such suite"),
        (("smoke", "--only", "lroa"), "Did you mean lora?"),
        (("smoke", "--dry-run", "--only", "x"), "no case named"),
        (("smoke", "--memory-limit", "4"), "unit"),
        (("smoke", "--timeout", "0"), "timeout"),
        (("smoke", "--device", "tpu"), "tpu"),
        (("batch-sweep", "--device", "cpu"), "--memory-limit"),
        (("t4",), "Error: "),
        (("smoke", "--out", "/proc/nowhere/x.jsonl"), "cannot write"),
    ],
)
def test_mistakes_are_told_in_a_line(arguments, says):
    result = run(*arguments)
    assert result.exit_code == 2
    assert says in result.output
    assert "Traceback" not in result.output
