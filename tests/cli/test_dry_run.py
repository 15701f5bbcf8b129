"""`peftbench plan --dry-run` end to end: the answer, its JSON, what has no formula, and what goes wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli_runner import refusal, run

from peftbench.base.errors import install_hint
from peftbench.cli.ask import plan_dry
from peftbench.dryrun import runner

pytestmark = pytest.mark.oracle

SIZES = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 128, "vocab_size": 256, "max_position_embeddings": 512,
}  # fmt: skip
RUN = ("--gpu", "t4", "--sequence-length", "64", "--dry-run")


@pytest.fixture
def without_libraries(own_child: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A child that finds no PEFT."""
    (tmp_path / "absent").mkdir()
    (tmp_path / "absent" / "peft.py").write_text("raise ModuleNotFoundError(\"No module named 'peft'\")")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "absent"))


def config(tmp_path: Path, **changes: Any) -> str:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "llama", **SIZES, **changes}))
    return str(path)


def document(*arguments: str) -> Any:
    result = run("plan", *arguments, "--format", "json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def needs_torch() -> None:
    for name in ("torch", "transformers", "peft", "bitsandbytes"):
        pytest.importorskip(name)


def test_the_json_has_the_keys_of_memory_and_a_timeline(tmp_path: Path) -> None:
    needs_torch()
    (plan,) = document("--model", config(tmp_path), "--method", "qlora", *RUN)["plans"]
    memory, dry_run = plan["memory"], plan["dry_run"]
    assert set(memory) <= set(dry_run)
    assert set(dry_run) - set(memory) == {"verdict", "end", "facts", "timeline"}
    assert [set(c) for c in dry_run["components"]] == [set(memory["components"][0])] * len(dry_run["components"])
    assert {c["basis"] for c in dry_run["components"] if c["part"] != "CUDA context"} == {"traced"}
    assert dry_run["phases"][dry_run["peak_phase"]] == dry_run["device_bytes"]
    assert dry_run["allocated_bytes"] == pytest.approx(memory["allocated_bytes"], rel=0.05)
    assert dry_run["end"] == {"ran_out": False, "num_alloc_retries": 0, "failure": None}
    points = dry_run["timeline"]["points"]
    assert max(point["allocated_bytes"] for point in points) == dry_run["allocated_bytes"]
    assert all(sum(point["parts"].values()) == point["allocated_bytes"] for point in points)


def test_both_stand_side_by_side_within_80_columns(tmp_path: Path) -> None:
    needs_torch()
    result = run("plan", "--model", config(tmp_path), "--method", "lora", *RUN)
    assert result.exit_code == 0, result.stderr
    assert "estimate  dry run" in result.stdout
    assert result.stdout.startswith("fits: lora on ")
    assert all(len(line) <= 80 for line in result.stdout.splitlines())


@pytest.mark.slow
def test_methods_are_compared_by_their_dry_runs(tmp_path: Path) -> None:
    needs_torch()
    result = run("plan", "--model", config(tmp_path), "--method", "lora", "--method", "full", *RUN)
    heading = next(line for line in result.stdout.splitlines() if line.strip().startswith("GiB "))
    assert heading.split()[-3:] == ["dry", "run", "headroom"]


@pytest.mark.parametrize("format_", ["csv", "markdown"])
def test_other_formats_have_it(tmp_path: Path, format_: str) -> None:
    needs_torch()
    result = run("plan", "--model", config(tmp_path), "--method", "lora", *RUN, "--format", format_)
    assert result.exit_code == 0, result.stderr
    assert ("dry_run_allocated_bytes" if format_ == "csv" else "dry run") in result.stdout


def test_an_architecture_without_formula_has_the_dry_run_alone(tmp_path: Path) -> None:
    needs_torch()
    other = config(tmp_path, model_type="persimmon")
    (plan,) = (whole := document("--model", other, "--method", "lora", *RUN))["plans"]
    assert whole["model"]["num_parameters"] > 0
    assert plan["memory"]["allocated_bytes"] == plan["dry_run"]["allocated_bytes"]
    assert plan["trainable_parameters"] > 0 and plan["verdict"]["fit"] == "fits"
    by_itself = run("plan", "--model", other, "--method", "lora", *RUN[:-1])
    assert "by formula: a dry run" in by_itself.stderr
    assert "the memory is that of the dry run" in " ".join(by_itself.stdout.split())


def test_what_only_a_formula_answers_is_refused_without_one(tmp_path: Path) -> None:
    other = config(tmp_path, model_type="persimmon")
    asked = ("plan", "--model", other, "--method", "lora")
    assert "--max is answered by formula" in refusal(*asked, "--gpu", "t4", "--max", "sequence-length")


def test_without_the_libraries_one_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_dry, "DRY_RUN_LIBRARIES", ("torchless",))
    said = refusal("plan", "--model", config(tmp_path, model_type="persimmon"), "--method", "lora", "--gpu", "t4")
    assert "by formula: a dry run can tell" in said and "with torchless installed" in said
    assert install_hint(extra="bench") in said


def test_inference_is_dry_run_too(tmp_path: Path) -> None:
    needs_torch()
    options = ("--task", "inference", "--method", "lora", "--prompt-tokens", "64", "--new-tokens", "4")
    (plan,) = document("--model", config(tmp_path), *options, "--gpu", "t4", "--dry-run")["plans"]
    assert set(plan["dry_run"]["phases"]) == {"load", "prefill", "decode"}
    assert plan["dry_run"]["allocated_bytes"] == pytest.approx(plan["memory"]["allocated_bytes"], rel=0.05)


@pytest.mark.slow
def test_batches_of_different_lengths(tmp_path: Path) -> None:
    needs_torch()
    (plan,) = document("--model", config(tmp_path), "--method", "lora", *RUN, "--batch-lengths", "32,64,48")["plans"]
    marks = plan["dry_run"]["timeline"]["marks"]
    assert {mark["step"] for mark in marks} == {0, 1, 2}


def test_a_card_that_is_too_small_says_where_it_runs_out(tmp_path: Path) -> None:
    needs_torch()
    options = ("--method", "full", "--sequence-length", "512", "--micro-batch-size", "64", "--gpu-memory", "340MiB")
    result = run("plan", "--model", config(tmp_path), *options, "--dry-run")
    assert result.exit_code == 0, result.stderr
    assert "runs out of memory in step 1" in " ".join(result.stdout.split())


# ── adapter_config.json ─────────────────────────────────────────────────────────────────────────────────────────────


def adapter(tmp_path: Path, **options: Any) -> str:
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({"peft_type": "LORA", "r": 4, "target_modules": ["q_proj", "v_proj"], **options}))
    return str(path)


@pytest.mark.slow
def test_the_file_is_the_recipe(tmp_path: Path) -> None:
    needs_torch()
    model = config(tmp_path)
    by_file = document("--model", model, "--adapter-config", adapter(tmp_path), *RUN)["plans"][0]
    options = ("--method", "lora", "--r", "4", "--target-modules", "q_proj,v_proj")
    by_options = document("--model", model, *options, *RUN)["plans"][0]
    assert by_file["memory"] == by_options["memory"]
    assert by_file["dry_run"]["allocated_bytes"] == by_options["dry_run"]["allocated_bytes"]


def test_what_only_peft_works_out_needs_a_dry_run(tmp_path: Path) -> None:
    needs_torch()
    model, file = config(tmp_path), adapter(tmp_path, rank_pattern={"q_proj": 16})
    by_itself = run("plan", "--model", model, "--adapter-config", file, "--gpu", "t4")
    assert "has no formula: a dry run tells" in by_itself.stderr
    (plan,) = document("--model", model, "--adapter-config", file, *RUN)["plans"]
    assert plan["trainable_parameters"] == 2 * (16 * (64 + 64) + 4 * (64 + 32))


@pytest.mark.parametrize(("content", "said"), [
    ("{", "this is not JSON"),
    ("[]", "not an object"),
    ('{"r": 4}', "has no peft_type"),
])  # fmt: skip
def test_a_file_that_is_no_adapter(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "adapter_config.json"
    file.write_text(content)
    assert said in refusal("plan", "--model", config(tmp_path), "--adapter-config", str(file), *RUN)


@pytest.mark.parametrize(("options", "said"), [
    (("--r", "4"), "exclude each other"),
    (("--method", "ia3"), "is of type lora, not ia3"),
    (("--method", "lora", "--method", "qlora"), "is one method"),
])  # fmt: skip
def test_the_file_and_options_that_contradict_it(tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    assert said in refusal("plan", "--model", config(tmp_path), "--adapter-config", adapter(tmp_path), *options, *RUN)


# ── what goes wrong ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("options", "said"), [
    (("--gpu", "t4", "--batch-lengths", "3"), "belongs to a dry run"),
    (("--gpu", "t4", "--extrapolate"), "belongs to a dry run"),
    (("--dry-run",), "needs a card"),
    ((*RUN, "--batch-lengths", "3,x"), "cannot read --batch-lengths"),
    ((*RUN, "--batch-lengths", "0"), "at least 1"),
    ((*RUN, "--alloc-conf", "expandable:True"), "expandable_segments"),
    ((*RUN, "--max", "sequence-length"), "answered by formula"),
    ((*RUN, "--adapter-config", "nowhere.json"), "cannot read nowhere.json"),
])  # fmt: skip
def test_options_that_cannot_be(tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    assert said in refusal("plan", "--model", config(tmp_path), *options)


def test_a_config_that_transformers_refuses(tmp_path: Path) -> None:
    needs_torch()
    wrong = config(tmp_path, model_type="persimmon", num_attention_heads=0)
    assert "transformers" in refusal("plan", "--model", wrong, "--method", "lora", *RUN)


def test_an_adapter_that_names_no_module(tmp_path: Path) -> None:
    needs_torch()
    other = config(tmp_path, model_type="persimmon")
    said = refusal("plan", "--model", other, "--method", "lora", "--target-modules", "nothing", *RUN)
    assert "PEFT cannot put this adapter on the model" in said


def test_missing_libraries_leave_the_estimate(tmp_path: Path, without_libraries: None) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("bitsandbytes")
    result = run("plan", "--model", config(tmp_path), "--method", "lora", *RUN, "--no-cache")
    assert result.exit_code == 0, result.stderr
    text = " ".join(result.stdout.split())
    assert "no dry run of lora" in text and install_hint(extra="bench") in text
    assert "GiB at the peak" in text


def test_a_child_killed_by_a_signal_leaves_the_estimate(
    tmp_path: Path, own_child: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "killed_worker.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(runner, "MODULE", "killed_worker")
    result = run("plan", "--model", config(tmp_path), "--method", "lora", *RUN, "--no-cache")
    assert result.exit_code == 0, result.stderr
    assert "ended by SIGKILL" in " ".join(result.stdout.split())
    assert "GiB at the peak" in result.stdout
