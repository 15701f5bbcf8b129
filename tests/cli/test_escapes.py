"""An escape in whatever a user's files and words hold is shown as text, on stdout and stderr, in every format."""

from __future__ import annotations

import ast
import json
import os
import subprocess
from pathlib import Path

import pytest
from cli_runner import run
from run_records import record

from peftbench.base.visible import quoted
from peftbench.catalog.models import list_models
from peftbench.records.run import record_to_json

NASTY = "\x1b]0;PWN\x07\x9b31m\u202e\u200b\r\n\udcff"
LLAMA = next(dict(m.config) for m in list_models() if m.config["model_type"] == "llama")
STORED = {**LLAMA, "quantization_config": {"quant_method": NASTY}}
SUITE = {"about": NASTY, "model": "1b", "cases": {"a" + NASTY: {"method": "lora"}}}
PRICE = "\x1b]0;PWN\x07\u202e"
PLAN = ("plan", "--gpu", "t4", "--model")


def recorded(**changes: object) -> dict[str, object]:
    made = record_to_json(record())
    return {**made, "suite": NASTY, "case": {**made["case"], "id": NASTY, "model": NASTY}, **changes}


@pytest.mark.parametrize(
    ("name", "content", "arguments"),
    [
        ("s.yaml", SUITE, ("run", "{}", "--dry-run")),
        ("s.yaml", {**SUITE, NASTY: 1}, ("run", "{}", "--dry-run")),
        ("s.yaml", {**SUITE, "model": NASTY}, ("run", "{}", "--dry-run")),
        ("s.yaml", {**SUITE, "cases": {"a": {"method": NASTY}}}, ("run", "{}", "--dry-run")),
        ("config.json", STORED, (*PLAN, "{}", "--method", "lora")),
        ("config.json", STORED, (*PLAN, "{}", "--method", "lora", "--format", "markdown")),
        ("config.json", {**LLAMA, "model_type": NASTY}, (*PLAN, "{}")),
        ("config.json", {**LLAMA, "hidden_act": NASTY}, (*PLAN, "{}")),
        ("r.jsonl", recorded(), ("report", "{}")),
        ("r.jsonl", recorded(), ("report", "{}", "--format", "csv")),
        ("r.jsonl", recorded(), ("validate", "{}", "--rows")),
        ("r.jsonl", recorded(), ("validate", "{}", "--rows", "--format", "markdown")),
        ("r.jsonl", recorded(kind=NASTY), ("report", "{}")),
        ("adapter.json", {"peft_type": NASTY}, (*PLAN, "1b", "--adapter-config", "{}")),
        ("adapter.json", {"peft_type": "LORA", "target_modules": [NASTY]}, (*PLAN, "1b", "--adapter-config", "{}")),
        ("calibration.json", {"product": NASTY, NASTY: 1}, (*PLAN, "1b", "--calibration", "{}")),
        ("trl.yaml", {"model_name_or_path": NASTY, NASTY: NASTY}, ("plan", "--gpu", "t4", "--from", "{}")),
        ("d.jsonl", {NASTY: NASTY}, ("choose", "--model", "1b", "--dataset", "{}")),
    ],
)
def test_files(name: str, content: object, arguments: tuple[str, ...], tmp_path: Path) -> None:
    folder = tmp_path / NASTY
    folder.mkdir()
    path = folder / name
    path.write_text(json.dumps(content))
    check(*(str(path) if word == "{}" else word for word in arguments))


def test_prices(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text(f"provider,gpu,gpus,usd_per_hour,kind\n{PRICE},l4,1,0.5,on-demand\n")
    for format_ in ("terminal", "csv", "markdown"):
        check("choose", "--model", "0.6b", "--tokens", "1M", "--prices", str(path), "--format", format_)


def test_words() -> None:
    for words in ((NASTY,), ("plan", f"--{NASTY}"), (*PLAN, NASTY), ("plan", "--format", NASTY), ("report", NASTY),
                  (*PLAN, "1b", "--target-modules", NASTY), ("run", "--only", NASTY, "--dry-run")):  # fmt: skip
        assert check(*words) == 2


def check(*arguments: str) -> int:
    """Run it: what it prints is printable, and it ends well or by one message."""
    result = run(*arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert (result.stdout + result.stderr).replace("\n", "").isprintable()
    assert "pwn" in (result.stdout + result.stderr).lower() or "--format" in arguments or result.exit_code == 0
    return result.exit_code


def test_a_script_and_a_configuration_are_read_back(tmp_path: Path) -> None:
    folder = tmp_path / "\x1b\u202e\U000e0001\"$x"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA))
    for tool, file in (("axolotl", "axolotl.yml"), ("transformers", "train.py")):
        printed = run("recipe", "--model", str(folder), "--for", tool)
        written = run("recipe", "--model", str(folder), "--for", tool, "-o", str(tmp_path / file))
        texts = ((tmp_path / file).read_text(), printed.stdout)
        assert written.exit_code == 0 and len({text.replace(f"{tmp_path}/", "") for text in texts}) == 1
        assert run("plan", "--from", str(tmp_path / file), "--gpu", "t4").exit_code == 0
    model = next(node for node in ast.parse(printed.stdout).body if isinstance(node, ast.Assign))
    assert ast.literal_eval(model.value) == str(folder)


def test_a_shell_reads_a_quoted_word_as_it_was() -> None:
    words = ["a b", "it's", NASTY, "x'\\\x1b1", "模型\x7f"]
    line = f"printf '%s\\0' {' '.join(map(quoted, words))}"
    assert line.isprintable()
    out = subprocess.run(["bash", "-c", line], capture_output=True, check=True).stdout
    assert out == b"".join(os.fsencode(word) + b"\0" for word in words)
