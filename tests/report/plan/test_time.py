"""What `plan` says of the time of a step: the table, `--explain time` and the JSON; and `validate` on speeds."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from cli_runner import answer, refusal

import peftbench

FILE = str(Path(peftbench.__file__).parents[1] / "results" / "published" / "throughput.csv")
PLAN = ("plan", "--model", "8b")
LORA = (*PLAN, "--method", "lora")
ONE_B = ("plan", "--model", "1b", "--method", "lora")


def times(*arguments: str) -> list[dict[str, object] | None]:
    return [plan["time"] for plan in json.loads(answer(*PLAN, *arguments, "--format", "json"))["plans"]]


def test_every_training_plan_has_a_line_unless_it_does_not_fit() -> None:
    text = answer(*PLAN, "--gpu", "l4")
    lines = text[text.index("expected by formula") :].splitlines()
    assert "uncalibrated, no steps on l4 published" in lines[0]
    assert "tokens/s" in lines[1]
    assert [line.split()[0] for line in lines[2:4]] == ["qlora", "lora"]
    assert "does not fit" in text and "full" not in "".join(lines[2:4])


def test_a_measured_card_is_not_called_uncalibrated() -> None:
    text = answer(*LORA, "--gpu", "a100-80gb")
    assert "expected by formula, not measured\n" in text


def test_an_adapter_or_a_link_that_nobody_timed_is_named() -> None:
    text = answer(*PLAN, "--method", "lora", "--method", "boft", "--gpu", "b200")
    assert "no steps on b200 published" in text
    mixed = " ".join(answer("plan", "--model", "1b", "--method", "lora", "--method", "boft", "--gpu", "l40s").split())
    assert "uncalibrated for boft: no constant was fitted to adapters that build weights" in mixed
    pair = answer(*ONE_B, "--gpu", "l40s", "--gpus", "2", "--parallel", "ddp")
    assert "name them by --link" not in pair, "copies of an adapter exchange little"
    sharded = (*ONE_B, "--gpu", "l40s", "--gpus", "2", "--parallel", "fsdp", "--sequence-length", "256")
    assert "the slots that the cards talk over are not known; name them by --link" in " ".join(answer(*sharded).split())
    assert "uncalibrated" not in answer(*sharded, "--link", "pcie4-x16")


def test_a_plan_without_a_time_says_why() -> None:
    for cli in ((*ONE_B, "--gpu", "p100-16gb"), (*ONE_B, "--gpu", "p100-16gb", "--format", "markdown")):
        assert "no time of a step: the rates of p100-16gb are not known." in answer(*cli)
    explained = answer(*ONE_B, "--gpu", "p100-16gb", "--explain", "time")
    assert "time —: the rates of p100-16gb are not known" in explained
    assert "no time" not in answer(*ONE_B, "--no-gpu")


def test_csv_and_markdown_have_the_time() -> None:
    (row,) = csv.DictReader(io.StringIO(answer(*ONE_B, "--gpu", "l40s", "--format", "csv")))
    (plan,) = json.loads(answer(*ONE_B, "--gpu", "l40s", "--format", "json"))["plans"]
    assert float(row["step_s"]) == plan["time"]["step_s"]
    assert float(row["training_tokens_per_s_low"]) == plan["time"]["tokens_per_s_low"]
    assert (row["time_calibrated"], row["framework"]) == ("true", "transformers")
    (unknown,) = csv.DictReader(io.StringIO(answer(*ONE_B, "--gpu", "p100-16gb", "--format", "csv")))
    assert unknown["step_s"] == unknown["time_calibrated"] == ""
    assert "| most of it" in answer(*ONE_B, "--gpu", "l40s", "--format", "markdown")


def test_the_json_has_the_time_with_terms_that_add_up() -> None:
    for found in times("--gpu", "a100-80gb"):
        assert found is not None
        terms = found["terms"]
        assert isinstance(terms, dict) and sum(terms.values()) == pytest.approx(found["step_s"])
        assert found["tokens_per_s"] == pytest.approx(2048 / float(str(found["step_s"])))
        assert found["tokens_per_s_low"] < found["tokens_per_s"] < found["tokens_per_s_high"]  # type: ignore[operator]
        assert found["calibrated"] is True


def test_the_json_says_null_where_nothing_is_known() -> None:
    assert set(times("--no-gpu")) == {None}
    assert set(times("--gpu-memory", "24GiB")) == {None}
    inference = json.loads(answer(*LORA, "--task", "inference", "--gpu", "l4", "--format", "json"))["plans"]
    assert "time" not in inference[0]


def test_a_framework_changes_the_time_and_nothing_else() -> None:
    usual, fused = (
        json.loads(answer(*LORA, "--gpu", "h100-sxm", "--framework", name, "--format", "json"))["plans"][0]
        for name in ("transformers", "unsloth")
    )
    assert usual.pop("time")["step_s"] > fused.pop("time")["step_s"]
    assert len(fused.pop("notes")) == len(usual.pop("notes")) + 1  # which says so
    assert usual == fused
    assert "training" in refusal(*LORA, "--task", "inference", "--gpu", "l4", "--framework", "unsloth")


def test_explain_lists_the_terms_and_the_formula() -> None:
    text = answer(*LORA, "--gpu", "a100-80gb", "--gpus", "8", "--explain", "time")
    for name in ("compute", "attention", "memory traffic", "launch floor", "links", "optimizer", "expected within"):
        assert name in text
    assert "estimate/time/step.py" in text
    assert "depends on the card" in refusal(*LORA, "--explain", "time")
    assert "training step" in refusal(*LORA, "--gpu", "l4", "--task", "inference", "--explain", "time")


# ── validate ────────────────────────────────────────────────────────────────────────────────────────────


def some_rows(tmp_path: Path) -> str:
    """Every ninth row: all sources, at a fraction of the time."""
    head, *rows = Path(FILE).read_text().splitlines()
    models = Path(FILE).with_name("throughput_models.json")
    (tmp_path / models.name).write_text(models.read_text())
    path = tmp_path / "some.csv"
    path.write_text("\n".join([head, *rows[::9]]) + "\n")
    return str(path)


def test_validate_prints_factors_by_group_and_for_every_row(tmp_path: Path) -> None:
    path = some_rows(tmp_path)
    table = answer("validate", path, "--by", "source")
    assert "median ×" in table and "llm-foundry" in table and "all" in table
    found = json.loads(answer("validate", path, "--by", "source", "--format", "json"))
    assert found[-1]["group"] == "all" and found[-1]["rows"] == sum(group["rows"] for group in found[:-1])
    rows = json.loads(answer("validate", path, "--rows", "--format", "json"))
    assert len(rows) == found[-1]["rows"]
    assert all(row["ratio"] == pytest.approx(row["predicted_s"] / row["measured_s"]) for row in rows)


def test_what_was_left_out_of_the_fit_is_said(tmp_path: Path) -> None:
    path = some_rows(tmp_path)
    found = answer("validate", path, "--by", "framework")
    assert "fitted without the row's framework" in " ".join(found.split()) and "torchtune" in found
    assert "9.0" in answer("validate", path, "--by", "generation")
    assert "training speeds" in refusal("validate", str(Path(FILE).parent), "--by", "framework")


def test_what_is_of_memory_is_refused_for_speeds(tmp_path: Path) -> None:
    assert "training speeds" in refusal("validate", FILE, "--dry-run")
    assert "of memory" in refusal("validate", FILE, "--by", "part")
    (tmp_path / "empty.csv").write_text(Path(FILE).read_text().splitlines()[0] + "\n")
    assert "no row" in refusal("validate", str(tmp_path / "empty.csv"))
    assert "no column" in refusal("validate", _written(tmp_path / "other.csv", "a,b\n1,2\n"))
    assert "cannot read" in refusal("validate", str(tmp_path / "none.csv"))


def _written(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)
