"""Calibration: constants that made the runs are found again, what runs cannot tell keeps its prior."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from calibrated_runs import CONTEXT_BYTES, GRID, L4, PLACE, SLACK, TRUTH, VERSIONS, card_run, card_runs
from hypothesis import given, settings
from hypothesis import strategies as st
from run_records import record

from peftbench.base.errors import CatalogError, PeftbenchError
from peftbench.check.calibration import fit as module
from peftbench.check.calibration.fit import calibrate
from peftbench.check.calibration.runs import Run
from peftbench.check.calibration.time import GROUPS
from peftbench.check.calibration.validation import compare_calibrated, step_accuracy
from peftbench.check.runs.comparison import compare
from peftbench.check.speed.constants_fit import Observation, fit
from peftbench.decide.calibrated import with_constants
from peftbench.decide.suite.predict_case import model_of, predict_case
from peftbench.estimate.time.step import constants_of, step_time
from peftbench.records.calibration import fingerprint, read_calibration, write_calibration
from peftbench.records.environment import Outcome
from peftbench.records.file import read_results
from peftbench.records.run import record_from_json, record_to_json

CPU_RUNS = Path(__file__).parents[3] / "results" / "cpu"


def factors(found) -> dict[str, float]:
    """Of each group, by its first field."""
    first = {name: next(iter(group.fields)) for name, group in GROUPS.items()}
    return {name: found.constants[field].value / getattr(constants_of(L4), field) for name, field in first.items()}


def fitted(found) -> set[str]:
    return {name for name, group in GROUPS.items() if found.constants[next(iter(group.fields))].fitted}


def test_the_constants_that_made_the_runs_are_found():
    found = calibrate(card_runs(), "2026-11-25")
    assert found.constants["context_bytes"].value == CONTEXT_BYTES
    assert found.constants["slack_factor"].value == pytest.approx(SLACK, rel=1e-6)
    assert fitted(found) == {"efficiency", "launch floor", "dequantization"}
    for name, factor in factors(found).items():
        assert factor == pytest.approx(TRUTH[name], rel=0.1), name
    assert (found.product, found.driver, found.stack["torch"]) == ("NVIDIA L4", "570.1", "2.13")


def test_a_case_that_was_left_out_is_predicted_better_than_by_the_priors():
    held = calibrate(card_runs(), "2026-11-25").held_out
    assert held.cases == len(GRID)
    assert held.time_median < 1.1 < held.prior_time_median
    assert held.device_median < 0.01 < held.prior_device_median


def test_one_run_decides_one_constant_and_the_others_keep_their_priors():
    """Twenty steps of one recipe on a rented card: long sequences tell how fast it is and no more."""
    found = calibrate([card_run("lora", {"sequence_length": 4096})], "2026-11-25")
    assert fitted(found) == {"efficiency"}
    assert factors(found)["efficiency"] == pytest.approx(TRUTH["efficiency"], rel=0.1)
    assert factors(found)["launch floor"] == factors(found)["dequantization"] == 1
    assert found.held_out.time_median is None and "—" in found.held_out_text


def test_a_disturbed_run_does_not_move_the_rest():
    runs = card_runs()
    calm, disturbed = (factors(calibrate(some, "")) for some in (runs, [*runs, card_run("lora", {}, noise=5.0)]))
    assert disturbed["efficiency"] == pytest.approx(calm["efficiency"], rel=0.1)


def test_a_case_that_was_run_often_weighs_as_one():
    runs = card_runs()
    often = [*runs, *[card_run(*GRID[0], noise=1 + i / 100) for i in range(9)]]
    for name, factor in factors(calibrate(often, "")).items():
        assert factor == pytest.approx(factors(calibrate(runs, ""))[name], rel=0.05)


def test_times_and_memory_of_the_card_change_with_it():
    found = calibrate(card_runs(), "2026-11-25")
    card = L4.calibrated(found.card_constants)
    run = card_run("lora", {"sequence_length": 96})
    (bare,), (better,) = compare([run]), compare([run], lambda one: predict_case(one.case, card), lambda _: card)
    assert abs(better.errors.device) < 0.01 < abs(bare.errors.device)
    expected, general = (step_time(model_of(run.case), run.case.recipe, one) for one in (card, L4))
    measured_s = run.measurement.step_s[0]
    assert expected.calibrated and expected.step_s == pytest.approx(measured_s, rel=0.1)
    assert general.step_s != pytest.approx(measured_s, rel=0.2)
    unsloth, usual = constants_of(card, "unsloth"), constants_of(L4, "unsloth")
    assert unsloth.layer_launch_s == usual.layer_launch_s and unsloth.matmul_share > usual.matmul_share


# ── what it refuses ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("other", "said"),
    [({"product": "NVIDIA A10G"}, "several cards: NVIDIA A10G, NVIDIA L4"),
     ({"versions": {**VERSIONS, "torch": "2.12.1"}}, "versions of torch: 2.12, 2.13")],
)  # fmt: skip
def test_records_of_several_cards_or_stacks_are_refused(other, said):
    with pytest.raises(CatalogError, match=said):
        calibrate([*card_runs(), card_run(*GRID[0], place=replace(PLACE, **other))], "")


def test_a_patch_of_a_library_is_the_same_stack():
    patched = replace(PLACE, versions={**PLACE.versions, "torch": "2.13.1+cu129"})
    assert calibrate([*card_runs(), card_run(*GRID[0], place=patched)], "").stack["torch"] == "2.13"


def test_runs_that_did_not_end_well_are_no_evidence():
    oom = record(measurement=replace(record().measurement, outcome=Outcome.OOM))
    with pytest.raises(CatalogError, match="ended well"):
        calibrate([oom], "")


def test_a_step_of_no_time_decides_nothing():
    stopped = record_of(card_run("lora", {}), step_s=(0.0, 0.0))
    assert "matmul_share" not in calibrate([stopped], "").constants


def test_few_timed_cases_promise_no_band():
    """Runs that were not timed are cases too, and say nothing about times."""
    runs = card_runs()
    untimed = [record_of(run, step_s=()) for run in runs[3:]]
    few, enough = (calibrate(some, "").held_out.time_p90 for some in ([*runs[:3], *untimed], runs))
    assert few is None and enough is not None


def record_of(run, **measured):
    return replace(run, measurement=replace(run.measurement, **measured))


def test_times_of_other_runs_are_judged_by_it_and_by_the_priors(tmp_path):
    file = tmp_path / "l4.json"
    write_calibration(calibrate(card_runs(), ""), file)
    others = card_runs(noise=1.02)
    general, own = step_accuracy(others), step_accuracy(others, str(file))
    assert general.runs == own.runs == len(others)
    assert own.median < 1.05 < general.median and "9 runs" in own.text
    assert step_accuracy([record()]) is None, "of a CPU nothing is known"


def test_a_share_of_a_data_sheet_outlives_a_correction_of_the_sheet():
    found = calibrate(card_runs(), "")
    corrected = replace(L4, tensor_flops=L4.tensor_flops // 2, memory_bandwidth=L4.memory_bandwidth * 2)
    case = card_run("qlora", {}).case
    before, after = (step_time(model_of(case), case.recipe, with_constants(c, found)).parts for c in (L4, corrected))
    assert after.compute_s == pytest.approx(before.compute_s, rel=1e-4)
    assert after.dequantization_s == pytest.approx(before.dequantization_s)


def test_it_is_not_judged_by_the_runs_it_was_fitted_on(tmp_path):
    runs, file = card_runs(), tmp_path / "l4.json"
    write_calibration(calibrate(runs[:6], ""), file)
    with pytest.raises(PeftbenchError, match="fitted on 1 of these"):
        compare_calibrated(runs[5:], str(file))
    calibrated, bare = compare_calibrated(runs[6:], str(file)), compare(runs[6:])
    assert all(abs(one.errors.device) < abs(other.errors.device) for one, other in zip(calibrated, bare, strict=True))
    with pytest.raises(CatalogError, match="of NVIDIA L4, and a run is of a CPU"):
        compare_calibrated([record()], str(file))


def test_a_fingerprint_outlives_new_fields_of_a_recipe():
    """A newer version writes fields that an older one did not know: it is the same run."""
    (one, *_) = card_runs()
    value = record_to_json(one)
    longer = replace(one.case, recipe=replace(one.case.recipe, padded=True))
    assert fingerprint(record_from_json(value)) == fingerprint(one) == fingerprint(replace(one, case=longer))
    assert fingerprint(card_run(*GRID[0], noise=1.001)) != fingerprint(one)


# ── a CPU, for real ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_speed_of_a_cpu_is_found_from_its_runs(tmp_path):
    found = calibrate(read_results(CPU_RUNS, print).runs, "2026-11-25")
    assert found.constants["matmul_share"].fitted and found.tensor_flops == 10**12
    assert found.held_out.time_median < 1.25 < found.held_out.prior_time_median
    write_calibration(found, tmp_path / "cpu.json")
    again = read_calibration(tmp_path / "cpu.json")
    assert again.records == found.records and again.stack == found.stack
    assert again.constants["matmul_share"].value == pytest.approx(found.constants["matmul_share"].value, rel=1e-5)


# ── the fit ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@settings(deadline=None, max_examples=40)
@given(st.floats(0.3, 3.0), st.floats(0.3, 3.0))
def test_two_constants_are_told_apart_where_each_rules_a_run(fast: float, late: float):
    def seconds(given, work, launches):
        return math.hypot(work / given["rate"], launches * given["launch"])

    truth = {"rate": 2.0 * fast, "launch": 0.01 * late}
    seen = [
        Observation(str(place), seconds(truth, work, launches), lambda c, w=work, n=launches: seconds(c, w, n))
        for place, (work, launches) in enumerate([(10.0, 1), (100.0, 1), (0.01, 100), (0.01, 200)])
    ]
    found = fit(seen, {"rate": 2.0, "launch": 0.01}, {"rate": 3.0, "launch": 3.0})
    assert found["rate"].value == pytest.approx(truth["rate"], rel=0.03)
    assert found["launch"].value == pytest.approx(truth["launch"], rel=0.03)
    assert found["rate"].low < found["rate"].value < found["rate"].high


def test_nothing_seen_leaves_the_priors():
    found = fit([], {"rate": 2.0}, {"rate": 1.5})["rate"]
    assert (found.value, found.low, found.high, found.runs) == (2.0, pytest.approx(4 / 3), 3.0, 0)


def test_many_cases_are_left_out_several_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many fits as MOST_FITS, and still every run is predicted by constants that were fitted without it."""
    runs, fits, usual = [Run(record) for record in card_runs()], [], module.fit_constants
    monkeypatch.setattr(module, "MOST_FITS", 3)
    monkeypatch.setattr(module, "fit_constants", lambda some: fits.append(len(some)) or usual(some))
    found = module.hold_out(runs)
    assert fits == [6, 6, 6] and found.cases == 9 and found.device_median is not None
