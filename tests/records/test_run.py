"""A record goes through JSON unchanged, and what is no record is refused in words."""

import json
from dataclasses import replace

import pytest
from run_records import CARD, case, environment, measurement, record

from peftbench.base.errors import CatalogError
from peftbench.inputs.recipe import InferenceSpec
from peftbench.memory import Phase
from peftbench.records.environment import Outcome
from peftbench.records.run import SCHEMA_VERSION, PhasePeak, Sample, record_from_json, record_to_json

RECORDS = [
    record(),
    record(environment=environment(**CARD)),
    record(case=case(recipe=InferenceSpec(prompt_tokens=8))),
    record(measurement=measurement(outcome=Outcome.OOM, message="x", last_phase=Phase.STEP, phases=(), samples=())),
    record(measurement=measurement(samples=(Sample(0.0, 5, 3, 71.5, 0.5, 40.0, 1500),), alloc_retries=0)),
    record(measurement=measurement(phases=(PhasePeak(0, Phase.LOAD, 5, 7, 0),), energy_j=1.5, prefill_s=(0.5,))),
]


@pytest.mark.parametrize("one", RECORDS)
def test_a_record_survives_json(one):
    assert record_from_json(json.loads(json.dumps(record_to_json(one), allow_nan=False))) == one


def test_a_record_holds_no_prediction():
    text = json.dumps(record_to_json(record()))
    assert "predict" not in text and "verdict" not in text


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"schema_version": SCHEMA_VERSION + 1}, "reads up to"),
        ({"schema_version": "1"}, "not a number"),
        ({"schema_version": True}, "not a number"),
        ({"case": {}}, "not a record of a run"),
        ({"case": []}, "not a record of a run"),
        ({"measurement": {}}, "not a record of a run"),
        ({"environment": None}, "not a record of a run"),
    ],
)
def test_what_is_no_record_is_refused(change, says):
    with pytest.raises(CatalogError, match=says):
        record_from_json({**record_to_json(record()), **change})


@pytest.mark.parametrize("value", [None, 3, "text", [], {}])
def test_neither_is_other_json(value):
    with pytest.raises(CatalogError):
        record_from_json(value)


def test_the_key_of_a_case_is_what_it_runs():
    one = case("a")
    assert one.key == replace(one, id="b", model="other name").key
    assert len({one.key, replace(one, steps=7).key, replace(one, seed=1).key, replace(one, device="cuda").key}) == 4
