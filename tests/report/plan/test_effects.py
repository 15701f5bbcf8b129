"""Times and published losses as they are shown: on the screen, in Markdown and CSV, and as JSON."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from typing import Any

import pytest
from cli_runner import answer

from peftbench.catalog.gpus import find_gpu
from peftbench.catalog.models import find_model
from peftbench.decide.plan.plan import Plan, make_inference_plan
from peftbench.decide.recipe import LORA, quantization_for
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.inputs.recipe import DType, InferenceSpec
from peftbench.report.format.sheet import UNKNOWN
from peftbench.report.plan.time import effects_document, published_notes, time_table

MODEL, A100, L4 = find_model("8b"), find_gpu("a100-80gb"), find_gpu("l4")
NF4 = quantization_for(DType.BFLOAT16)
QLORA = InferenceSpec(adapter=LORA, quantization=NF4)


def planned(request: InferenceSpec, gpu: GpuSpec | None) -> Plan:
    return make_inference_plan(MODEL, request, gpu)


def document(plan: Plan) -> Any:
    assert plan.effects is not None
    return json.loads(json.dumps(effects_document(plan.effects), allow_nan=False))


def test_the_keys_of_latency_are_a_contract() -> None:
    latency = document(planned(QLORA, L4))["latency"]
    assert set(latency) == {
        "prefill_s", "prefill_low_s", "prefill_high_s", "decode_s_per_token", "decode_low_s_per_token",
        "decode_high_s_per_token", "tokens_per_s", "tokens_per_s_low", "tokens_per_s_high", "calibrated", "terms",
    }  # fmt: skip
    for name in ("prefill", "decode"):
        assert set(latency["terms"][name]) == {
            "launch_floor_s", "quantized_launches_s", "adapter_launches_s", "compute_s", "weight_traffic_s",
            "kv_cache_traffic_s", "dequantization_s", "bound_by",
        }  # fmt: skip


@pytest.mark.parametrize("batch_size", [1, 8])
def test_a_time_can_be_recomputed_from_its_terms(batch_size: int) -> None:
    latency = document(planned(replace(QLORA, batch_size=batch_size), L4))["latency"]
    terms = latency["terms"]["decode"]
    host = sum(terms[f"{name}_s"] for name in ("launch_floor", "quantized_launches", "adapter_launches"))
    card = max(terms["compute_s"], terms["weight_traffic_s"]) + terms["kv_cache_traffic_s"] + terms["dequantization_s"]
    assert latency["decode_s_per_token"] == pytest.approx(max(host, card))
    assert latency["tokens_per_s"] == pytest.approx(batch_size / max(host, card))
    assert latency["decode_low_s_per_token"] < latency["decode_s_per_token"] < latency["decode_high_s_per_token"]


def test_what_is_not_known_is_null_in_json_and_a_dash_in_the_table() -> None:
    without = replace(L4, memory_bandwidth=None)
    assert document(planned(QLORA, without))["latency"] is None
    table = time_table([planned(QLORA, without), planned(InferenceSpec(), L4)])
    assert table is not None
    assert next(row for row in table.rows if row[0] == "qlora")[1:] == (UNKNOWN,) * 5
    assert document(planned(InferenceSpec(), L4))["published"] == {"quality": None, "dynamic_ratio": None}


def test_without_a_card_or_where_nothing_fits_there_is_no_table() -> None:
    assert time_table([planned(QLORA, None)]) is None
    assert time_table([planned(InferenceSpec(), find_gpu("t4"))]) is None


def test_the_table_says_where_no_time_was_published() -> None:
    titles = [table.title for gpu in (A100, L4) if (table := time_table([planned(QLORA, gpu)]))]
    assert ["uncalibrated" in title for title in titles] == [False, True]


def test_a_published_figure_names_its_model_and_source_once() -> None:
    notes = published_notes([planned(QLORA, L4), planned(replace(QLORA, batch_size=2), L4)])
    assert len(notes) == 2
    assert "Meta-Llama-3-8B" in notes[0] and "litgpt" in notes[0]
    assert "Qwen-7B-Chat" in notes[1] and "ms-swift" in notes[1]


def test_csv_and_markdown_have_the_times() -> None:
    question = ("plan", "--model", "8b", "--gpu", "l4", "--task", "inference", "--format")
    rows = list(csv.DictReader(io.StringIO(answer(*question, "csv"))))
    assert [row["method"] for row in rows] == ["full", "lora", "qlora"]
    assert all(float(row["prefill_s"]) > 0 and float(row["tokens_per_s"]) > 0 for row in rows)
    assert "| tokens/s |" in " ".join(answer(*question, "markdown").split())


def test_training_has_no_times() -> None:
    whole = json.loads(answer("plan", "--model", "8b", "--gpu", "l4", "--method", "lora", "--format", "json"))
    assert not {"latency", "published"} & set(whole["plans"][0])
