"""`peftbench validate` as a user runs it."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from peftbench.cli import main

PUBLISHED = str(Path(__file__).parents[2] / "results" / "published")


def run(*arguments):
    return CliRunner().invoke(main, ["validate", *arguments])


def test_it_works_from_any_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(PUBLISHED)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].split("  ")[0] == "size"
    assert [line.split()[:2] for line in lines if " all " in line] == [
        ["allocated", "all"], ["reserved", "all"], ["device", "all"],
    ]  # fmt: skip
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("by", ["source", "model"])
def test_other_groups_fit_the_terminal_too(by):
    assert max(map(len, run(PUBLISHED, "--by", by).stdout.splitlines())) <= 80


def test_rows_in_json_are_every_record():
    rows = json.loads(run(PUBLISHED, "--rows", "--format", "json").stdout)
    files = Path(PUBLISHED).glob("*.jsonl")
    assert [row["id"] for row in rows] == [
        json.loads(line)["id"] for file in sorted(files) for line in file.read_text().splitlines()
    ]
    first = rows[0]
    assert first["error"] == pytest.approx(first["predicted_bytes"] / first["measured_bytes"] - 1)


@pytest.mark.parametrize(("limit", "code"), [("0%", 1), ("0.0001", 1), ("99%", 0), ("99", 0)])
def test_fail_above(limit, code):
    assert run(PUBLISHED, "--fail-above", limit).exit_code == code


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nowhere",), "no such file or folder: nowhere"),
        ((PUBLISHED, "--fail-above", "much"), "takes a percentage"),
        ((PUBLISHED, "--fail-above", "nan"), "takes a percentage"),
        ((PUBLISHED, "--timeout", "60"), "--timeout has no effect without --dry-run"),
        ((PUBLISHED, "--dry-run", "--timeout", "nan"), "not a number of seconds"),
        ((PUBLISHED, "--by", "moon"), "'moon' is not one of"),
        ((f"{PUBLISHED}/README.md",), "line 1: left out, it is not JSON"),
    ],
)
def test_bad_input_is_one_message(arguments, says):
    result = run(*arguments)
    assert result.exit_code == 2
    assert says in result.stderr
    assert "Traceback" not in result.stderr
