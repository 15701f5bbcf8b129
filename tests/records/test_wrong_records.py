"""A record that is wrong in any place costs itself only: no view meets what it cannot compute with."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from calibrated_runs import card_run, write_runs
from cli_runner import run
from comparison_samples import latency_record, quality_record
from run_records import record
from run_samples import L4
from run_samples import run as sample

from peftbench.records.comparison import comparison_record_to_json
from peftbench.records.run import record_to_json

RESULTS = Path(__file__).parents[2] / "results"
SEED, MUTATIONS, A_FILE = 20261201, 400, 50
WRONG: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2**63, 10**30, 10**400, -(10**400), 0.5, -0.5, 1e300, 5e-324, float("nan"), float("inf"),
    "", "64", "x" * 3000, "\x1b]0;PWN\x07", "2026-13-45T99:99:99Z", [], {}, [1], [None], ["x"], [[]], {"a": 1},
)  # fmt: skip


def shipped(file: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (RESULTS / file).read_text().splitlines()]


def originals() -> list[dict[str, Any]]:
    """Every kind of line, as JSON has it, with few samples: the others are alike."""
    runs = [record(), sample("lora", L4), card_run("qlora", {"sequence_length": 128})]
    compared = [quality_record(), latency_record()]
    values = [*map(record_to_json, runs), *map(comparison_record_to_json, compared)]
    values += [*shipped("cpu/smoke.jsonl")[:2], *shipped("cpu/generation-smoke.jsonl")[:1]]
    values += [*shipped("cpu/quality-smoke.jsonl"), *shipped("cpu/adapters-latency-smoke.jsonl")]
    values += [*shipped("published/fms-acceleration.jsonl")[:2], *shipped("published/peft-metamathqa.jsonl")[:1]]
    for value in values:
        if "measurement" in value:
            del value["measurement"]["samples"]["rows"][5:]
    return json.loads(json.dumps(values))  # type: ignore[no-any-return]


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something can be wrong; of a list, its first values."""
    if place:
        yield place
    inner = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    for name, each in inner:
        yield from places(each, (*place, name))


def mutated(value: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """One place of it is left out, doubled, or holds something else."""
    *holders, last = draw.choice(list(places(value)))
    holder = changed = copy.deepcopy(value)
    for name in holders:
        holder = holder[name]
    change = draw.choice(("set", "set", "set", "delete", "double", "shorten"))
    if change == "delete":
        del holder[last]
    elif change == "double" and isinstance(holder, list):
        holder.append(holder[last])
    elif change == "shorten" and isinstance(holder[last], list):
        holder[last] = holder[last][:-1]
    else:
        holder[last] = draw.choice(WRONG)
    return changed


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Files that begin with good lines."""
    draw, values = random.Random(SEED), originals()
    lines = [json.dumps(mutated(draw.choice(values), draw)) for _ in range(MUTATIONS)]
    good, folder = [json.dumps(value) for value in (values[0], values[3])], tmp_path_factory.mktemp("wrong")
    paths = [folder / f"{start}.jsonl" for start in range(0, MUTATIONS, A_FILE)]
    for number, path in enumerate(paths):
        path.write_text("\n".join([*good, *lines[number * A_FILE :][:A_FILE]]) + "\n")
    return [str(path) for path in paths]


def answered(*arguments: str) -> None:
    result = run(*arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code in (0, 2) and "Traceback" not in result.stderr


@pytest.mark.parametrize("format_", ["terminal", "markdown", "csv", "json", "jsonl", "html"])
def test_every_format_of_report_leaves_wrong_records_out(wrong: list[str], tmp_path: Path, format_: str) -> None:
    for path in wrong:
        answered("report", path, "--format", format_, "-o", str(tmp_path / "out"))


def test_validate_and_calibrate_leave_them_out(wrong: list[str], tmp_path: Path) -> None:
    calibration = str(tmp_path / "l4.json")
    l4 = write_runs(tmp_path / "l4.jsonl", [card_run("lora", {"sequence_length": 64})])
    answered("calibrate", str(l4), "-o", calibration)
    for path in wrong:
        for more in ((), ("--rows",), ("--by", "part"), ("--by", "source"), ("--calibration", calibration)):
            answered("validate", path, *more)
        answered("calibrate", path, "-o", str(tmp_path / "c.json"))


def test_the_place_and_the_reason_are_told_and_the_rest_is_answered(tmp_path: Path) -> None:
    good, bad = record_to_json(record("good")), record_to_json(record("bad"))
    bad["measurement"]["process_peak_bytes"] = -5
    path = tmp_path / "a.jsonl"
    path.write_text(f"{json.dumps(bad)}\n{json.dumps(good)}\n")
    for verb in ("report", "validate"):
        result = run(verb, str(path))
        assert result.exit_code == 0
        assert f"{path}, line 1: left out, not a record of a run: " in result.stderr.replace("\n      ", " ")
        assert "record.measurement.process_peak_bytes must not be negative (got -5)" in result.stderr
    assert "good" in run("report", str(path)).stdout and "bad" not in run("report", str(path)).stdout


@pytest.mark.parametrize("field", ["memory_bytes", "multiprocessors"])
def test_a_card_of_nothing_costs_its_record_only(tmp_path: Path, field: str) -> None:
    good = record_to_json(card_run("lora", {"sequence_length": 64}))
    bad = copy.deepcopy(good)
    bad["environment"][field] = 0
    path = tmp_path / "runs.jsonl"
    path.write_text(f"{json.dumps(bad)}\n{json.dumps(good)}\n")
    done = run("validate", str(path))
    assert done.exit_code == 0, done.stderr
    assert "line 1: left out" in done.stderr
