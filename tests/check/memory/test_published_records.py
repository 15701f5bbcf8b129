"""Reading published measurements: records survive a round trip, and a corrupt line is named."""

import json
from dataclasses import replace

import pytest

from peftbench.check.memory.published import PublishedRecord, published_reader, record_from_json, record_to_json
from peftbench.inputs.recipe import AdapterSpec, DType, QuantizationSpec, TrainingSpec
from peftbench.records.lines import read_lines

RECORD = PublishedRecord(
    id="a-1",
    repository="someone/benchmarks",
    path="results.csv",
    commit="abc123",
    model="meta-llama/Llama-3.2-1B",
    training=TrainingSpec(
        dtype=DType.FLOAT16,
        adapter=AdapterSpec(r=8, target_modules=("q_proj", "v_proj"), options=(("lora_bias", True),)),
        quantization=QuantizationSpec(quant_type="fp4", compute_dtype=DType.FLOAT16),
    ),
    trainable_parameters=851968,
    gpu="t4",
    metric="reserved_max",
    measured_bytes=3 * 2**30,
    stack={"torch": "2.4.1"},
    notes="by hand",
)


def line(**changes):
    return json.dumps(record_to_json(RECORD) | changes)


def written(tmp_path, *lines):
    (tmp_path / "records.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path / "records.jsonl"


def ids(path, tell=pytest.fail):
    return [record.id for record in read_lines(path, published_reader(), tell)]


def test_round_trip():
    assert record_from_json(json.loads(line())) == RECORD
    full = replace(RECORD, training=TrainingSpec(adapter=None), trainable_parameters=None)
    assert record_from_json(json.loads(json.dumps(record_to_json(full)))) == full


def test_a_folder_is_its_files_in_order(tmp_path):
    (tmp_path / "b.jsonl").write_text(line(id="second") + "\n\n")
    (tmp_path / "a.jsonl").write_text(line(id="first") + "\n")
    (tmp_path / "README.md").write_text("not a record")
    assert ids(tmp_path) == ["first", "second"]


@pytest.mark.parametrize(
    ("corrupt", "says"),
    [
        ("{not json", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "must be an object"),
        (line(schema_version=2), "schema_version is 2"),
        (line(metric="vibes"), "record.metric must be one of allocated_max, reserved_max, nvml_used, not 'vibes'"),
        (line(measured_bytes=1.5), "measured_bytes must be a whole number"),
        (line(measured_bytes=True), "measured_bytes must be a whole number"),
        (line(measured_bytes=0), "record.measured_bytes must be at least 1 (got 0)"),
        (line(measured_bytes=-5), "record.measured_bytes must be at least 1 (got -5)"),
        (line(measured_bytes=10**400), "record.measured_bytes must be a number of at most 18 digits"),
        (line(batch_lengths=[0]), "record.batch_lengths[0] must be at least 1"),
        (line(source={"repository": "x"}), "lacks the field 'path'"),
        (line(source=[]), "source must be an object"),
        (line(training=None), "training must be an object"),
        (line(training={"sequence_length": "long"}), "training.sequence_length must be a whole number, not 'long'"),
        (line(training={"sequence_len": 5}), "no field 'sequence_len'"),
        (line(training={"dtype": "int4"}), "must be one of float32"),
        (line(training={"adapter": {"target_modules": "q_proj"}}), "training.adapter.target_modules"),
        (line(training={"adapter": {"options": [["a"]]}}), "training.adapter.options"),
        (line(training={"quantization": {}}), "quantized weights cannot be trained"),
        (line(training={"optimizer": None}), "training.optimizer must be text, not None"),
    ],
)
def test_a_corrupt_line_is_named_and_costs_itself_only(tmp_path, corrupt, says):
    path, told = written(tmp_path, line(), corrupt, line(id="a-2")), []
    assert ids(path, told.append) == ["a-1", "a-2"]
    assert len(told) == 1 and f"{path}, line 2: left out" in told[0]
    assert says in told[0]


def test_one_id_twice_counts_once(tmp_path):
    told = []
    assert ids(written(tmp_path, line(), line()), told.append) == ["a-1"]
    assert "line 2: left out, the id 'a-1' came before." in told[0]
