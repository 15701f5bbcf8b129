"""A latency comparison in a real child: every variant is told with its figures."""

import json

import pytest
from runs.latency_cases import BASE, DYNAMIC, INT8, MERGED, NF4, latency_case, variant

from peftbench.measure.child_process import Stop
from peftbench.measure.device.open import open_device
from peftbench.measure.runner import run_comparison
from peftbench.records.comparison import comparison_record_from_json, comparison_record_to_json
from peftbench.records.environment import Outcome

VARIANTS = (
    BASE, DYNAMIC, MERGED, variant("several", "dynamic", adapters=3), variant("int8", quantization=INT8),
    variant("nf4", quantization=NF4), variant("nf4-dynamic", "dynamic", quantization=NF4),
    variant("nf4-merged", "merged", quantization=NF4),
)  # fmt: skip


def record_of(case, seen=None):
    with Stop() as stop:
        return run_comparison(
            case, open_device("cpu"), "suite", stop, 300.0,
            lambda course: None if seen is None else seen.append(course.progress),
        )  # fmt: skip


@pytest.fixture(scope="module")
def measured():
    """A record, and the progress that was told on the way."""
    seen = []
    case = latency_case(*VARIANTS, batch_size=2, rounds=6, most_rounds=8, switching=True)
    return record_of(case, seen), seen


def test_it_ends_well_and_survives_its_file(measured):
    record, seen = measured
    assert record.outcome is Outcome.OK, record.message
    assert comparison_record_from_json(json.loads(json.dumps(comparison_record_to_json(record)))) == record
    assert seen == sorted(seen) and seen[0] < 0.1 < 0.9 < seen[-1] <= 1.0


def test_every_variant_has_its_figures(measured):
    record, _ = measured
    rounds = record.facts["rounds"]
    assert [result.variant for result in record.results] == [each.name for each in VARIANTS] and 6 <= rounds <= 8
    for result in record.results:
        times = (result.prefill_s, result.decode_s, result.prefill_cpu_s, result.decode_cpu_s)
        assert {len(values) for values in times} == {rounds}
        assert all(value > 0 for values in times for value in values)
        assert result.weights_bytes > 0 < result.peak_bytes
        assert result.load_s > 0
        assert (result.merge_s is not None) == ("merged" in result.variant)
        assert bool(result.operations) == (result.variant in ("dynamic", "several", "nf4-dynamic"))
        assert bool(result.notes) == (result.variant == "nf4-merged")


def test_speed_is_told_beside_correctness(measured):
    differences = {result.variant: result.max_logit_difference for result in measured[0].results}
    assert differences["dynamic"] == differences["several"] == differences["nf4-dynamic"] == 0.0
    assert differences["merged"] < 1e-4 < differences["base"]
    assert 1e-4 < differences["nf4-merged"] < 1.0
    assert differences["int8"] is None


def test_facts_say_what_was_measured(measured):
    record, _ = measured
    assert record.facts["parameters"] == 106_816
    assert "(twin) / base in decode" in record.facts["null_check"]
    assert "nf4-merged / nf4 in prefill" in record.facts["null_check"]
    assert len(record.facts["twin"]["decode_cpu_s"]) == record.facts["rounds"]
