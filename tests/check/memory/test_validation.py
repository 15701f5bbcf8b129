"""The arithmetic of validation, on rows made by hand."""

import pytest

from peftbench.check.memory.published import PublishedRecord
from peftbench.check.memory.validation import ValidatedRow, ValidationReport, accuracy_of, figure_of, validate
from peftbench.inputs.recipe import AdapterSpec, TrainingSpec


def record(id="a", measured=1000, metric="allocated_max", model="meta-llama/Llama-3.2-1B", training=None):
    return PublishedRecord(
        id=id, repository="r", path="p", commit="c", model=model, training=training or TrainingSpec(),
        trainable_parameters=None, gpu="a100-80gb", metric=metric, measured_bytes=measured, stack={},
    )  # fmt: skip


def row(measured, predicted, metric="allocated_max", low=0, high=2000, **of_record):
    measurement = record(measured=measured, metric=metric, **of_record)
    return ValidatedRow(figure_of(measurement), predicted, low, high, "backward pass")


THREE = (row(1000, 990), row(1000, 1030), row(2000, 1900))


def test_errors_have_a_sign_and_summaries_do_not():
    assert [r.error for r in THREE] == pytest.approx([-0.01, 0.03, -0.05])
    accuracy = accuracy_of("all", "allocated_max", THREE)
    assert accuracy.rows == 3
    assert (accuracy.median_error, accuracy.worst_error) == pytest.approx((0.03, 0.05))
    assert accuracy.bias == pytest.approx(-0.01)
    assert accuracy.in_band is None


def test_p90_is_a_row_that_exists():
    rows = [row(1000, 1000 + i) for i in range(1, 11)]
    assert accuracy_of("all", "allocated_max", rows).p90_error == pytest.approx(0.009)


def test_the_band_is_inclusive_and_counted():
    rows = [row(m, 1000, "nvml_used", low=900, high=1100) for m in (899, 900, 1100, 1101)]
    assert [r.in_band for r in rows] == [False, True, True, False]
    assert accuracy_of("all", "nvml_used", rows).in_band == 0.5


def test_groups_never_mix_sizes():
    lora = TrainingSpec(adapter=AdapterSpec(r=8))
    report = ValidationReport((*THREE, row(10, 11, "reserved_max"), row(1000, 1100, training=lora)))
    found = [(a.metric, a.group, a.rows) for a in report.accuracies("method")]
    assert found == [
        ("allocated_max", "full", 3), ("allocated_max", "lora", 1), ("allocated_max", "all", 4),
        ("reserved_max", "full", 1), ("reserved_max", "all", 1),
    ]  # fmt: skip
    assert report.worst_allocated_error == pytest.approx(0.1)


def test_each_size_is_compared_with_its_own():
    """The band of a reserved figure is the device's without the context."""
    metrics = ("allocated_max", "reserved_max", "nvml_used")
    found = validate((record(metric, metric=metric) for metric in metrics), pytest.fail)
    allocated, reserved, device = found.rows
    assert allocated.predicted_bytes < reserved.predicted_bytes < device.predicted_bytes
    assert reserved.low_bytes < device.low_bytes
    assert reserved.low_bytes <= reserved.predicted_bytes <= reserved.high_bytes


@pytest.mark.parametrize(
    "bad", [{"model": "no/such-model-anywhere"}, {"training": TrainingSpec(optimizer="adamw9")}]
)
def test_a_record_that_cannot_be_predicted_is_named_and_left_out(bad, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    told = []
    assert [row.record.id for row in validate([record("odd", **bad), record("even")], told.append).rows] == ["even"]
    assert len(told) == 1 and "record 'odd': left out" in told[0]
