"""Every verb in every format: one list of formats, CSV of plain values, HTML that says what it needs."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from datetime import datetime
from pathlib import Path

import pytest
from calibrated_runs import card_runs, write_runs
from cli_runner import answer, refusal, run
from run_samples import samples

from peftbench.records.environment import Outcome
from peftbench.report.format.writers import FORMATS

ROOT = Path(__file__).parents[2]
PLAN = ("plan", "--model", "8b")
CHOOSE = ("choose", "--model", "0.6b", "--tokens", "50M", "--gpu", "rtx4090", "--own", "t4")
VALIDATE = ("validate", str(ROOT / "results" / "published"))
QUESTIONS = (
    (*PLAN, "--gpu", "t4"),
    (*PLAN, "--gpu", "l4", "--gpu", "t4", "--method", "qlora"),
    (*PLAN, "--gpu", "l4", "--task", "inference"),
    CHOOSE,
    ("models",),
    ("gpus",),
    VALIDATE,
    (*VALIDATE, "--rows"),
    ("validate", str(ROOT / "results" / "cpu"), "--by", "part"),
    ("validate", str(ROOT / "results" / "published" / "throughput.csv"), "--by", "device"),
    ("validate", str(ROOT / "results" / "published" / "throughput.csv"), "--rows"),
    ("report", str(ROOT / "results" / "cpu"), "-o", "-"),
)
MEASURE = r"[~≥+-]*\d[\d,]*(\.\d+)? ?(%|×|[kMBT]|[KMGT]?i?B|m?s|h|min|d|USD)?"
"""A number as people read it."""


def is_plain(cell: str) -> bool:
    """A number, a date, a word or words; nothing that is only meant for people's eyes."""
    for read in (float, datetime.fromisoformat):
        try:
            read(cell.removesuffix("Z"))
        except ValueError:
            continue
        return cell[:1] != "+"
    return not re.fullmatch(MEASURE, cell) and not set(cell) & set("—▏█") and cell[:1] != "'"


@pytest.mark.parametrize("question", QUESTIONS, ids=" ".join)
def test_csv_holds_plain_values(question: tuple[str, ...]) -> None:
    head, *rows = csv.reader(io.StringIO(run(*question, "--format", "csv").stdout))
    assert rows and len(set(head)) == len(head)
    assert not [(name, cell) for row in rows for name, cell in zip(head, row, strict=True) if not is_plain(cell)]


def test_csv_of_a_calibration_holds_plain_values(tmp_path: Path) -> None:
    path, to = write_runs(tmp_path / "l4.jsonl", card_runs()), ("-o", str(tmp_path / "l4.json"))
    rows = list(csv.DictReader(io.StringIO(run("calibrate", str(path), *to, "--format", "csv").stdout)))
    assert rows and all(is_plain(cell) for row in rows for cell in row.values())
    assert all(float(row["low"]) <= float(row["value"]) <= float(row["high"]) for row in rows)


def test_what_is_for_eyes_is_not_plain() -> None:
    assert not any(map(is_plain, ("'+0.08", "—", "6.74 B", "14.56 GiB", "+4.38", "~+0.8", "≥23.1 GiB", "95 %")))
    assert all(map(is_plain, ("", "-0.5", "1e-6", "true", "2026-11-25", "8x7b", "out of memory", "t4", "7.5")))


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("question", [(*PLAN, "--gpu", "t4"), CHOOSE, ("gpus",), VALIDATE], ids=" ".join)
def test_every_verb_has_every_format(question: tuple[str, ...], format_: str) -> None:
    if format_ == "html":
        pytest.importorskip("jinja2")
        pytest.importorskip("plotly")
    text = answer(*question, "--format", format_)
    if format_ == "json":
        json.loads(text)
    if format_ == "html":
        assert "<table>" in text and "default-src 'none'" in text
        assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)=", text)


@pytest.mark.parametrize("question", [(*PLAN, "--gpu", "t4"), CHOOSE, ("gpus",)], ids=" ".join)
def test_jsonl_has_the_rows_of_csv(question: tuple[str, ...]) -> None:
    lines = [json.loads(line) for line in answer(*question, "--format", "jsonl").splitlines()]
    rows = list(csv.DictReader(io.StringIO(answer(*question, "--format", "csv"))))
    assert len(lines) == len(rows) and {tuple(line) for line in lines} == {tuple(rows[0])}
    assert all(row[name] == str(value) for line, row in zip(lines, rows, strict=True)
               for name, value in line.items() if type(value) in (int, float))  # fmt: skip


@pytest.mark.parametrize("module", ["jinja2", "plotly"])
def test_without_the_extra_html_says_what_to_install(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    for name in (module, f"{module}.io"):
        monkeypatch.setitem(sys.modules, name, None)
    for question in QUESTIONS[:5]:
        said = refusal(*question, "--format", "html")
        assert f"needs {module}, which is not installed" in said
        assert "Run: pip install 'peftbench[report]'" in said


def test_no_rows_are_no_lines(tmp_path: Path) -> None:
    timed_out = next(record for record in samples() if record.outcome is Outcome.TIMEOUT)
    path = write_runs(tmp_path / "runs.jsonl", [timed_out])
    assert answer("validate", str(path), "--rows", "--format", "jsonl") == ""
