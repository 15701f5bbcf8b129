"""lm-evaluation-harness on variants, with a task whose data is a local file."""

import json

import pytest
from runs.tiny_llama import save_tiny_llama

from peftbench.base.codec import from_json
from peftbench.base.errors import MeasureError, install_hint
from peftbench.inputs.comparison import QualityCase, Variant, comparison_from_json, comparison_to_json
from peftbench.inputs.recipe import AdapterSpec, DType, QuantizationSpec
from peftbench.measure.quality import lm_eval_tasks
from peftbench.measure.quality.compare import compare_quality
from peftbench.measure.quality.lm_eval_tasks import check_tasks
from peftbench.records.comparison import QualityResult

TASK = """
task: birds
dataset_path: json
dataset_kwargs: {data_files: {test: %s}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: answer
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""


@pytest.fixture
def task(tmp_path):
    """Ten questions whose answers the model, which is random, cannot know."""
    rows = [{"question": f"{n} birds", "choices": [" sang", " times"], "answer": n % 2} for n in range(10)]
    data, file = tmp_path / "birds.jsonl", tmp_path / "birds.yaml"
    data.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    file.write_text(TASK % data, encoding="utf-8")
    return str(file)


def case(tmp_path, **more):
    folder = save_tiny_llama(tmp_path)
    weights = QuantizationSpec(compute_dtype=DType.FLOAT32)
    nf4 = Variant(name="nf4", quantization=weights)
    dynamic = Variant(name="lora", quantization=weights, route="dynamic", adapter=AdapterSpec(r=2), against="nf4")
    return QualityCase(
        id="x", model=str(folder), text=str(folder / "text.txt"), blocks=2, block_tokens=16, adapter_steps=2,
        variants=(nf4, dynamic), **more,
    )  # fmt: skip


@pytest.mark.slow
def test_every_variant_has_the_metrics_of_a_local_task(tmp_path, task):
    pytest.importorskip("lm_eval")
    events = []
    compare_quality(case(tmp_path, tasks=[task], task_limit=8), events.append)
    sent = [json.loads(json.dumps(event["result"])) for event in events if "result" in event]
    results = [from_json(QualityResult, each, "result") for each in sent]
    assert [result.variant for result in results] == ["reference", "nf4", "lora"]
    for result in results:
        ((name, value, error),) = result.task_metrics
        assert name == "birds acc" and value in {count / 8 for count in range(9)}  # of 8 documents
        assert (error > 0) is (0 < value < 1)


def test_the_case_keeps_its_tasks_in_a_file(tmp_path, task):
    asked = case(tmp_path, tasks=[task, "arc_easy"], task_limit=5)
    again = comparison_from_json(json.loads(json.dumps(comparison_to_json(asked))))
    assert again == asked and again.tasks == (task, "arc_easy")


def test_what_tasks_need_is_said_before_anything_runs(tmp_path, task, monkeypatch):
    monkeypatch.setattr(lm_eval_tasks, "find_spec", lambda name: None)
    events = []
    with pytest.raises(MeasureError, match="not installed") as error:
        compare_quality(case(tmp_path, tasks=[task]), events.append)
    assert install_hint(extra="eval") in error.value.hint and events == []


def test_a_task_file_that_is_not_there(monkeypatch):
    monkeypatch.setattr(lm_eval_tasks, "find_spec", lambda name: True)
    with pytest.raises(MeasureError, match=r"no task file nowhere\.yaml"):
        check_tasks(("nowhere.yaml",))


def test_a_task_file_without_a_name(tmp_path, monkeypatch):
    monkeypatch.setattr(lm_eval_tasks, "find_spec", lambda name: True)
    file = tmp_path / "nameless.yaml"
    file.write_text("output_type: multiple_choice\n", encoding="utf-8")
    with pytest.raises(MeasureError, match="names no task"):
        check_tasks((str(file),))


def test_no_tasks_need_nothing():
    check_tasks(())
