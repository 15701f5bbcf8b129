"""The smoke suite for real: the libraries' own Trainer and generate(), measured, beside both predictions."""

import io
import json

import pytest
from click.testing import CliRunner
from run_records import case

from peftbench.check.runs.comparison import by_formula, compare
from peftbench.check.runs.dry_validation import by_dry_run_of_case
from peftbench.cli import main
from peftbench.dryrun.session import DryRunSession
from peftbench.inputs.recipe import AdapterSpec, TrainingSpec
from peftbench.inputs.suite import find_suite, read_suite
from peftbench.measure.child_process import Stop
from peftbench.measure.device.open import Host
from peftbench.measure.runner import run_case
from peftbench.measure.worker import _measured
from peftbench.memory import Phase
from peftbench.records.environment import Outcome
from peftbench.records.file import read_results

SMOKE = tuple(read_suite(find_suite("smoke")).cases)
GENERATION = ("base", "nf4", "lora", "qlora")
"""8-bit weights are left out: what bitsandbytes writes out for them on a CPU has no formula."""
QUICK = ("full", "qlora", "generate lora")
"""Each is a child process. The other methods' formulas have oracles that start none."""


@pytest.fixture(scope="session")
def record_of(tmp_path_factory):
    """The record of a case of either smoke suite; each is run when it is first asked for."""
    folder, found = tmp_path_factory.mktemp("runs"), {}

    def measured(name):
        kind, _, case = name.rpartition(" ")
        suite = "generation-smoke" if kind else "smoke"
        done = CliRunner().invoke(main, ["run", suite, "--out", str(folder / f"{suite}.jsonl"), "--only", case])
        assert done.exit_code == 0, done.output
        told = []
        records = read_results(folder / f"{suite}.jsonl", told.append).runs
        assert told == []
        return next(record for record in records if record.case.id == case)

    return lambda name: found.get(name) or found.setdefault(name, measured(name))


def quick_first(names):
    return [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in names]


ALL = quick_first((*SMOKE, *(f"generate {name}" for name in GENERATION)))


@pytest.mark.parametrize("name", ALL)
def test_it_runs(record_of, name):
    record = record_of(name)
    found = record.measurement
    assert found.outcome is Outcome.OK, found.message
    assert found.process_peak_bytes > found.allocated_bytes
    assert len(found.step_s) == record.case.steps and found.duration_s > sum(found.step_s)
    training = isinstance(record.case.recipe, TrainingSpec)
    assert {peak.phase for peak in found.phases} >= (
        {Phase.LOAD, Phase.FORWARD, Phase.BACKWARD, Phase.STEP} if training else {Phase.PREFILL, Phase.DECODE}
    )


@pytest.mark.parametrize("name", quick_first(SMOKE))
def test_the_loss_falls(record_of, name):
    record = record_of(name)
    losses = record.measurement.losses
    assert len(losses) == record.case.steps + record.case.warmup_steps
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", ALL)
def test_the_estimate_is_within_3_percent(record_of, name):
    (comparison,) = compare([record_of(name)], by_formula)
    assert abs(comparison.errors.allocated) <= 0.03


@pytest.fixture(scope="module")
def session():
    with DryRunSession() as session:
        yield session


@pytest.mark.parametrize("name", ALL)
def test_the_dry_run_is_within_1_percent(record_of, session, name):
    (comparison,) = compare([record_of(name)], by_dry_run_of_case(session, lambda record, share: None))
    assert abs(comparison.errors.allocated) <= 0.01


# ── ends ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_child_that_may_not_have_enough_runs_out_of_memory():
    recipe = TrainingSpec(sequence_length=256, micro_batch_size=256, loop="plain", gradient_checkpointing=False)
    with Stop() as stop:
        asked = case(recipe=recipe, memory_limit_bytes=100 << 20)
        found = run_case(asked, Host(), "suite", stop, timeout_s=300.0).measurement
    assert found.outcome is Outcome.OOM, found.message
    assert found.last_phase in (Phase.FORWARD, Phase.BACKWARD)


def events_of(**options):
    """What the worker would write of a case, run in this process; its last event is apart."""
    told = io.StringIO()
    return _measured(case(**options), told), [json.loads(line) for line in told.getvalue().splitlines()]


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        ({"loss": "fused"}, "not what the installed transformers does"),
        ({"zero_grad_keeps": True}, "sets gradients to None"),
        ({"optimizer": "adamw"}, "adamw"),
        ({"adapter": AdapterSpec(target_modules=("nowhere",))}, "nowhere"),
    ],
)
def test_what_cannot_be_run_is_an_error_in_words(recipe, says):
    last, _ = events_of(recipe=TrainingSpec(sequence_length=32, **recipe))
    assert last["failed"]["outcome"] == Outcome.ERROR
    assert says in last["failed"]["message"]


def test_a_loss_that_is_no_number_ends_the_run():
    last, events = events_of(learning_rate=99.0, steps=30, recipe=TrainingSpec(sequence_length=32, optimizer="sgd"))
    assert "done" in last or last["failed"]["outcome"] == Outcome.ERROR
    json.dumps(events, allow_nan=False)
