"""Records of comparisons: written, read again, kept apart from runs, and refused where they are something else."""

import json

import pytest
from comparison_samples import latency_record, quality_record
from run_records import record

from peftbench.base.errors import CatalogError
from peftbench.records.comparison import comparison_record_from_json, comparison_record_to_json
from peftbench.records.file import RecordFile, read_results

BOTH = [quality_record(), latency_record()]


@pytest.mark.parametrize("made", BOTH, ids=["quality", "latency"])
def test_a_record_comes_back_as_it_was(made):
    text = json.dumps(comparison_record_to_json(made))
    assert comparison_record_from_json(json.loads(text)) == made


def test_runs_and_comparisons_share_a_folder(tmp_path):
    told = []
    with RecordFile(tmp_path / "a.jsonl", told.append) as file:
        for one in (record(), *BOTH):
            file.append(one)
    (tmp_path / "a.jsonl").open("a").write('{"kind": "quality", "schema_')
    assert read_results(tmp_path, told.append).runs == (record(),)
    assert list(read_results(tmp_path, told.append).comparisons) == BOTH
    assert len(told) == 2 and all("stopped in the middle" in line for line in told)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema_version": 99}, "reads up to"),
        ({"schema_version": None}, "has no schema_version|not a number"),
        ({"outcome": "splendid"}, "splendid"),
        ({"results": [{"variant": "nf4"}]}, "not a record of a comparison"),
        ({"results": [{"variant": "nf4", "nll": ["x"]}]}, "not a record of a comparison"),
        ({"case": {"task": "quality", "variants": [], "nonsense": 1}}, "nonsense"),
        ({"facts": None, "results": None}, "not a record of a comparison"),
    ],
)
def test_anything_else_is_refused(change, words):
    value = {**json.loads(json.dumps(comparison_record_to_json(BOTH[0]))), **change}
    with pytest.raises(CatalogError, match=words):
        comparison_record_from_json(value)


def test_equal_questions_have_equal_keys():
    case = BOTH[1].case
    from dataclasses import replace

    assert replace(case, id="other").key == case.key != replace(case, seed=1).key
