"""A run beside its prediction: like with like, no error of a run that did not end well, a note where there is none."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from run_records import CARD, case, environment, measurement, record

from peftbench.base.errors import NoFormula
from peftbench.check.runs.comparison import Errors, card_of, compare
from peftbench.memory import Phase
from peftbench.records.environment import Outcome
from peftbench.records.run import PhasePeak

ON_CARD = record(
    case=case(device="cuda"), environment=environment(**CARD),
    measurement=measurement(phases=(PhasePeak(1, Phase.BACKWARD, 1 << 20, 1 << 21),), device_peak_bytes=1 << 29),
)  # fmt: skip


def test_each_size_is_compared_with_its_own_kind():
    (found,) = compare([ON_CARD])
    assert found.measured == (1 << 20, 1 << 21, 1 << 29)
    assert found.errors.allocated == pytest.approx(found.profile.allocated_bytes / (1 << 20) - 1)
    assert found.errors.device == pytest.approx(found.profile.device_bytes / (1 << 29) - 1)
    assert found.verdict.fit.value == "fits"


def test_a_cpu_has_one_size_and_no_verdict():
    (found,) = compare([record()])
    assert found.predicted.allocated_bytes and found.predicted[1:] == (None, None)
    assert found.verdict is None and card_of(found.record) is None


def test_what_did_not_end_well_has_no_error():
    stopped = replace(ON_CARD, measurement=replace(ON_CARD.measurement, outcome=Outcome.OOM))
    assert compare([stopped])[0].errors == Errors(None, None, None)


def test_what_has_no_formula_says_so():
    strange = replace(ON_CARD, case=replace(ON_CARD.case, config=json.dumps({"model_type": "strange"})))
    (found,) = compare([strange])
    assert found.profile is None and found.verdict is None and "strange" in found.note


def test_the_verdict_is_of_what_the_run_was_allowed_to_take():
    limited = replace(ON_CARD, case=replace(ON_CARD.case, memory_limit_bytes=1000))
    assert compare([limited])[0].verdict.fit.value == "does_not_fit"


def test_another_prediction_can_be_asked_for():
    def refuse(record):
        raise NoFormula("not today")

    assert compare([ON_CARD], refuse)[0].note == "not today"
