"""`peftbench calibrate` and the file it writes: used for its card and stack, refused for others."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from calibrated_runs import VERSIONS, card_runs, write_runs
from cli_runner import answer, refusal, run

import peftbench
from peftbench.decide import calibrated
from peftbench.records.calibration import minor

PLAN = ("plan", "--model", "1b", "--gpu", "l4", "--method", "lora")


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Calibrations of whoever runs the tests stay where they are."""
    monkeypatch.setenv("PEFTBENCH_CALIBRATION", str(tmp_path / "calibrations"))
    return tmp_path / "calibrations"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    here = calibrated.installed()
    if any(here.get(name, minor(version)) != minor(version) for name, version in VERSIONS.items()):
        pytest.skip("other libraries are installed than the runs are of")
    return write_runs(tmp_path / "results" / "l4.jsonl", card_runs())


def test_it_writes_where_plan_looks_and_says_what_it_found(runs: Path, own_folder: Path) -> None:
    result = run("calibrate", str(runs))
    assert result.exit_code == 0, result.output
    assert "700.00 MiB" in result.stdout and "9 runs" in result.stdout and "held out: time ×1.0" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
    value = json.loads((own_folder / "l4.json").read_text())
    assert value["schema_version"] == 1 and len(value["records"]) == 9
    assert "GPU-1" not in json.dumps(value), "the file is of a product, not of one card"


def test_plan_uses_it_and_says_so(runs: Path) -> None:
    before = answer(*PLAN)
    run("calibrate", str(runs))
    after = answer(*PLAN)
    assert "calibrated on 9 runs" not in before and "calibrated on 9 runs of NVIDIA L4" in " ".join(after.split())
    assert answer(*PLAN, "--calibration", "none") == before
    document = json.loads(answer(*PLAN, "--format", "json"))
    (plan,) = document["plans"]
    assert plan["gpu"]["context_bytes"] == 700 << 20
    assert plan["gpu"]["calibration"]["context_bytes"]["records"] == 9
    assert plan["time"]["calibrated"] is True
    other = ("plan", "--model", "1b", "--gpu", "t4")
    assert answer(*other) == answer(*other, "--calibration", "none")


def test_every_format_of_the_constants_can_be_read(runs: Path, tmp_path: Path) -> None:
    to = ("--output", str(tmp_path / "l4.json"))
    found = json.loads(run("calibrate", str(runs), *to, "--format", "json").stdout)
    assert {row["constant"] for row in found} >= {"context_bytes", "slack_factor", "matmul_share", "layer_launch_s"}
    assert run("calibrate", str(runs), *to, "--format", "csv").stdout.startswith("constant,")


def test_another_card_or_stack_is_refused(runs: Path, tmp_path: Path) -> None:
    file = tmp_path / "l4.json"
    run("calibrate", str(runs), "-o", str(file))
    said = refusal("plan", "--model", "1b", "--gpu", "t4", "--calibration", str(file))
    assert "a calibration of NVIDIA L4, not of Tesla T4" in said and "--calibration none" in said
    assert "transformers 5.23, not of 4.48" in refusal(*PLAN, "--transformers", "4.48", "--calibration", str(file))
    file.write_text(file.read_text().replace('"torch": "2.13"', '"torch": "2.9"'))
    if "torch" in calibrated.installed():
        assert "is of torch 2.9, not of 2.13" in refusal(*PLAN, "--calibration", str(file))


def test_one_of_another_stack_in_the_default_place_is_told_and_left_alone(runs: Path, own_folder: Path) -> None:
    before = answer(*PLAN, "--transformers", "4.48")
    run("calibrate", str(runs))
    result = run(*PLAN, "--transformers", "4.48")
    assert result.stdout == before and "calibration of l4 is not used" in result.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [("{", "not JSON"), ("[]", "must be an object"), ('{"schema_version": 9}', "Upgrade"),
     ('{"schema_version": 1, "constants": {}}', "not a calibration"),
     ('{"schema_version": 1, "constants": {"a": {"value": 1}}}', "constants.a lacks the field 'low'")],
)  # fmt: skip
def test_a_file_that_is_not_one_gets_one_message(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "broken.json"
    file.write_text(text)
    assert said in refusal(*PLAN, "--calibration", str(file))
    assert "No such file" in refusal(*PLAN, "--calibration", str(tmp_path / "missing.json"))


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [(("memory_bandwidth",), 1e-300, "memory_bandwidth must be at least 1,000"),
     (("constants", "matmul_share", "value"), 0, "matmul_share.value must be at least 1e-09 (got 0)"),
     (("constants", "layer_launch_s", "low"), -1, "layer_launch_s.low must not be negative (got -1)"),
     (("constants", "context_bytes", "value"), "700 MiB", "context_bytes.value must be a finite number, not '700 MiB'"),
     (("constants", "slack_factor", "high"), float("inf"), "slack_factor.high must be a finite number, not inf"),
     (("constants", "a"), {"value": 1, "low": 0, "high": 0, "unit": "", "records": 1}, "no constant is called 'a'"),
     (("held_out", "time_p90"), 0.5, "time_p90 must be at least 1 (got 0.5)")],
    ids=str,
)  # fmt: skip
def test_a_number_that_cannot_be_is_named(path: tuple[str, ...], value: object, said: str, tmp_path: Path,
                                          runs: Path) -> None:  # fmt: skip
    file = tmp_path / "l4.json"
    run("calibrate", str(runs), "-o", str(file))
    document = inner = json.loads(file.read_text())
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    file.write_text(json.dumps(document))
    assert said in refusal(*PLAN, "--calibration", str(file))


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[]", b'{"schema_version": 1}', b'{"schema_version": 9}'])
def test_a_broken_one_in_the_default_place_is_named_and_not_used(own_folder: Path, content: bytes) -> None:
    without = answer(*PLAN, "--calibration", "none")
    own_folder.mkdir()
    (own_folder / "l4.json").write_bytes(content)
    result = run(*PLAN)
    assert result.stdout == without and "the calibration of l4 is not used" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_pipe_in_the_default_place_is_no_reason_to_wait(own_folder: Path) -> None:
    own_folder.mkdir()
    os.mkfifo(own_folder / "l4.json")
    assert "is a pipe, not a file" in run(*PLAN).stderr


def test_published_figures_and_other_files_are_no_runs(tmp_path: Path) -> None:
    published = Path(peftbench.__file__).parents[1] / "results" / "published"
    (tmp_path / "binary.jsonl").write_bytes(b"\x00\xff" * 50)
    for path in (published, tmp_path):
        assert refusal("calibrate", str(path)).count("\n") <= 3
        assert "holds no record of a run" in refusal("calibrate", str(path))


def test_validate_says_how_far_off_steps_are(runs: Path, tmp_path: Path) -> None:
    file = tmp_path / "l4.json"
    run("calibrate", str(runs), "-o", str(file))
    others = write_runs(tmp_path / "others.jsonl", card_runs(noise=1.01))
    by = ((), ("--calibration", str(file)))
    general, own = (" ".join(answer("validate", str(others), *more).split()) for more in by)
    assert "The steps of 9 runs are expected within a factor of" in general
    assert "×1.01 at the median" in own and "×1.01 at the median" not in general


def test_validate_does_not_score_it_on_its_own_rows(runs: Path, tmp_path: Path) -> None:
    file = tmp_path / "l4.json"
    run("calibrate", str(runs), "-o", str(file))
    assert "fitted on 9 of these records" in refusal("validate", str(runs), "--calibration", str(file))
    others = write_runs(tmp_path / "others.jsonl", card_runs(noise=1.01))
    result = run("validate", str(others), "--calibration", str(file))
    assert result.exit_code == 0, result.output


def test_choose_ranks_a_card_by_what_was_measured_on_it(runs: Path) -> None:
    question = ("choose", "--model", "1b", "--tokens", "5M", "--gpu", "l4", "--format", "json")
    before = answer(*question)
    run("calibrate", str(runs))
    without = answer(*question, "--calibration", "none")
    assert without.replace(" --calibration none", "") == before  # it stands in the commands
    assert answer(*question) != before
    said = " ".join(answer(*question[:-2]).split())
    assert "calibrated on 9 runs of NVIDIA L4" in said
