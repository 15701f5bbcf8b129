"""The smoke suite for real: the libraries' own Trainer and generate(), measured, beside both predictions."""

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner
from run_records import case

from peftbench.check.runs.comparison import by_formula, compare
from peftbench.check.runs.dry_validation import by_dry_run_of_case
from peftbench.cli import main
from peftbench.dryrun.session import DryRunSession
from peftbench.inputs.recipe.adapter import AdapterSpec
from peftbench.inputs.recipe.training import TrainingSpec
from peftbench.inputs.suite import find_suite, read_suite
from peftbench.measure.child_process import Stop
from peftbench.measure.device.open import Host
from peftbench.measure.runner import run_case
from peftbench.memory import Phase
from peftbench.records.environment import Outcome
from peftbench.records.file import read_results

SMOKE = tuple(read_suite(find_suite("smoke")).cases)
GENERATION = ("base", "nf4", "lora", "qlora")
"""8-bit weights are left out: what bitsandbytes writes out for them on a CPU has no formula."""


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Records by case, of both smoke suites."""
    folder = tmp_path_factory.mktemp("runs")
    only = [word for name in GENERATION for word in ("--only", name)]
    for name, arguments in (("smoke", []), ("generation-smoke", only)):
        done = CliRunner().invoke(main, ["run", name, "--out", str(folder / f"{name}.jsonl"), *arguments])
        assert done.exit_code == 0, done.output
    told = []
    found = {record.case.id: record for record in read_results(folder / "smoke.jsonl", told.append).runs}
    found |= {f"generate {r.case.id}": r for r in read_results(folder / "generation-smoke.jsonl", told.append).runs}
    assert told == []
    return found


ALL = (*SMOKE, *(f"generate {name}" for name in GENERATION))


@pytest.mark.parametrize("name", ALL)
def test_it_runs(records, name):
    found = records[name].measurement
    assert found.outcome is Outcome.OK, found.message
    assert found.process_peak_bytes > found.allocated_bytes
    assert len(found.step_s) == records[name].case.steps and found.duration_s > sum(found.step_s)
    training = isinstance(records[name].case.recipe, TrainingSpec)
    assert {peak.phase for peak in found.phases} >= (
        {Phase.LOAD, Phase.FORWARD, Phase.BACKWARD, Phase.STEP} if training else {Phase.PREFILL, Phase.DECODE}
    )


@pytest.mark.parametrize("name", SMOKE)
def test_the_loss_falls(records, name):
    losses = records[name].measurement.losses
    assert len(losses) == records[name].case.steps + records[name].case.warmup_steps
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", ALL)
def test_the_estimate_is_within_3_percent(records, name):
    (comparison,) = compare([records[name]], by_formula)
    assert abs(comparison.errors.allocated) <= 0.03


@pytest.fixture(scope="module")
def session():
    with DryRunSession(use_cache=False) as session:
        yield session


@pytest.mark.parametrize("name", ALL)
def test_the_dry_run_is_within_1_percent(records, session, name):
    (comparison,) = compare([records[name]], by_dry_run_of_case(session, lambda record, share: None))
    assert abs(comparison.errors.allocated) <= 0.01


# ── ends ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def measured(**options):
    with Stop() as stop:
        return run_case(case(**options), Host(), "suite", stop, timeout_s=300.0).measurement


def test_a_child_that_may_not_have_enough_runs_out_of_memory():
    recipe = TrainingSpec(sequence_length=256, micro_batch_size=256, loop="plain", gradient_checkpointing=False)
    found = measured(recipe=recipe, memory_limit_bytes=100 << 20)
    assert found.outcome is Outcome.OOM, found.message
    assert found.last_phase in (Phase.FORWARD, Phase.BACKWARD)


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        (TrainingSpec(loss="fused"), "not what the installed transformers does"),
        pytest.param(TrainingSpec(zero_grad_keeps=True), "sets gradients to None", marks=pytest.mark.slow),
        pytest.param(TrainingSpec(optimizer="adamw"), "adamw", marks=pytest.mark.slow),
        (TrainingSpec(adapter=AdapterSpec(target_modules=("nowhere",))), "nowhere"),
    ],
)
def test_what_cannot_be_run_is_an_error_in_words(recipe, says):
    found = measured(recipe=replace(recipe, sequence_length=32))
    assert found.outcome is Outcome.ERROR
    assert says in found.message


def test_a_loss_that_is_no_number_ends_the_run():
    found = measured(learning_rate=99.0, steps=30, recipe=TrainingSpec(sequence_length=32, optimizer="sgd"))
    assert found.outcome in (Outcome.ERROR, Outcome.OK)
    assert all(loss == loss for loss in found.losses)
    json.dumps(found.losses, allow_nan=False)
