"""Our own runs beside predictions: figures, parts and promises."""

import json
import re
from dataclasses import replace

import pytest
from click.testing import CliRunner
from run_records import CARD, case, environment, measurement, record

from peftbench.check.runs.comparison import Comparison, compare
from peftbench.check.runs.parts import accuracies_of_parts, part_rows
from peftbench.check.runs.validation import promises_of, run_rows
from peftbench.cli import main
from peftbench.decide.verdict import Fit
from peftbench.inputs.recipe import TrainingSpec
from peftbench.memory import Phase
from peftbench.records.environment import Outcome
from peftbench.records.file import RecordFile
from peftbench.records.run import PhasePeak, RunRecord
from peftbench.report.format.writers import FORMATS

ON_CARD = environment(**CARD)


def on_card(outcome: Outcome = Outcome.OK, limit: int | None = None, **of_measurement) -> RunRecord:
    ended = measurement(
        outcome=outcome, device_peak_bytes=700 << 20,
        phases=(PhasePeak(0, Phase.FORWARD, 100 << 20, 200 << 20, 90 << 20),), **of_measurement,
    )  # fmt: skip
    return record(environment=ON_CARD, measurement=ended, case=case(device="cuda", memory_limit_bytes=limit))


def test_each_size_of_a_run_on_a_card_is_a_row():
    (comparison,) = compare([on_card()])
    rows = {row.record.metric: row for row in run_rows(comparison)}
    assert set(rows) == {"allocated_max", "reserved_max", "nvml_used"}
    assert rows["nvml_used"].predicted_bytes == comparison.profile.device_bytes
    assert rows["allocated_max"].record.origin["torch"] == "2.13.0"


def test_a_cpu_shows_tensors_only():
    rows = run_rows(compare([record()])[0])
    assert [row.record.metric for row in rows] == ["allocated_max"]


@pytest.mark.parametrize("outcome", [Outcome.OOM, Outcome.TIMEOUT, Outcome.KILLED, Outcome.ERROR])
def test_what_did_not_end_well_is_no_figure(outcome):
    assert run_rows(compare([on_card(outcome)])[0]) == ()


def judged(fit: Fit, outcome: Outcome) -> Comparison:
    (comparison,) = compare([on_card(outcome)])
    return replace(comparison, verdict=comparison.verdict._replace(fit=fit))


def test_promises_and_alarms():
    comparisons = [judged(fit, outcome) for fit in Fit for outcome in (Outcome.OK, Outcome.OOM, Outcome.ERROR)]
    promises = promises_of([*comparisons, compare([record()])[0]])
    assert len(promises.comparisons) == 8
    assert [c.verdict.fit for c in promises.broken] == [Fit.FITS]
    assert [c.verdict.fit for c in promises.false_alarms] == [Fit.DOES_NOT_FIT]
    assert promises.count(Fit.TIGHT, Outcome.OK) == 1


def test_a_limit_is_the_card_that_is_judged():
    assert compare([on_card()])[0].verdict.fit is Fit.FITS
    assert compare([on_card(limit=1 << 20)])[0].verdict.fit is Fit.DOES_NOT_FIT


# ── parts ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_parts_add_up_to_the_peak():
    (comparison,) = compare([record()])
    rows = {row.part: row for row in part_rows(comparison)}
    parts = ("weights and adapters", "optimizer states", "forward and backward")
    assert sum(rows[part].measured_bytes for part in parts) == 1800
    assert sum(rows[part].predicted_bytes for part in parts) == comparison.profile.allocated_bytes


def test_the_worst_part_comes_first():
    (comparison,) = compare([record()])
    found = accuracies_of_parts(part_rows(comparison))
    assert [a.worst for a in found] == sorted((a.worst for a in found), reverse=True)
    assert found[0].worst_id == "lora"


def test_a_plain_loop_and_a_record_without_marks_have_no_parts():
    plain = case(recipe=TrainingSpec(loop="plain"))
    bare = measurement(phases=(PhasePeak(1, Phase.BACKWARD, 1800),))
    for one in (record(case=plain), record(measurement=bare)):
        assert part_rows(compare([one])[0]) == ()


# ── the command ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def folder(tmp_path):
    for name, records in (("l4", [on_card(), on_card(Outcome.OOM)]), ("cpu", [record()])):
        with RecordFile(tmp_path / name / "suite.jsonl", print) as file:
            for one in records:
                file.append(one)
    return tmp_path


def validate(*arguments):
    return CliRunner().invoke(main, ["validate", *map(str, arguments)])


def test_the_command_reads_runs(folder):
    result = validate(folder)
    assert result.exit_code == 0, result.output
    assert "broken promise: suite: lora" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert validate(folder, "--fail-above", "1%").exit_code == 1


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("more", [(), ("--by", "part"), ("--rows",)], ids=" ".join)
def test_a_broken_promise_is_in_every_format(folder, format_, more):
    if format_ == "html":
        pytest.importorskip("jinja2")
    result = validate(folder, *more, "--format", format_)
    assert result.exit_code == 0, result.output
    assert "suite: lora" in result.stdout and re.search("broken.promise", result.stdout)


def test_verdicts_are_rows_after_the_others(folder):
    *_, fits, tight, risky, too_large = json.loads(validate(folder, "--format", "json").stdout)
    assert fits == {"verdict": "fits", "ran": 1, "out_of_memory": 1, "broken_promises": ["suite: lora"]}
    assert (tight["verdict"], risky["verdict"], too_large["false_alarms"]) == ("tight", "risky", [])


@pytest.mark.parametrize("by", ["device", "source", "model", "part"])
def test_other_groups(folder, by):
    result = validate(folder, "--by", by)
    assert result.exit_code == 0, result.output
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_a_line_that_cannot_be_read_is_told_and_the_others_count(folder):
    with open(folder / "cpu" / "suite.jsonl", "a") as file:
        file.write("{broken\n")
    result = validate(folder)
    assert result.exit_code == 0 and "line 2: left out" in result.stderr
