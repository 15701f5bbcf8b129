"""The JSON of `plan`: its keys are a contract, and its sums agree."""

from __future__ import annotations

import json
from typing import Any

import pytest

from peftbench.catalog.gpus import find_gpu
from peftbench.catalog.models import find_model
from peftbench.decide.plan.plan import Plan, make_inference_plan, make_plan
from peftbench.decide.recipe import LORA, quantization_for
from peftbench.inputs.recipe import DType, InferenceSpec, TrainingSpec
from peftbench.report.plan.document import plan_document

MODEL, T4 = find_model("8b"), find_gpu("t4")
FULL, LORA_16 = TrainingSpec(), TrainingSpec(adapter=LORA)
QLORA = TrainingSpec(adapter=LORA, quantization=quantization_for(DType.BFLOAT16))

PLANS = {
    "full": make_plan(MODEL, FULL, T4),
    "lora": make_plan(MODEL, LORA_16, T4),
    "qlora": make_plan(MODEL, QLORA, T4),
    "no card": make_plan(MODEL, QLORA),
    "inference": make_inference_plan(MODEL, InferenceSpec(adapter=LORA), T4),
    "quantized inference": make_inference_plan(MODEL, InferenceSpec(quantization=QLORA.quantization), T4),
}


def document(*plans: Plan) -> Any:
    """As a reader gets it."""
    return json.loads(json.dumps(plan_document(MODEL, plans), allow_nan=False))


def test_the_top_level() -> None:
    whole = document(*PLANS.values())
    assert list(whole) == ["schema_version", "model", "plans"]
    assert whole["schema_version"] == 2
    assert whole["model"]["name"] == "meta-llama/Llama-3.1-8B"
    assert whole["model"]["num_parameters"] == 8_030_261_248
    assert len(whole["plans"]) == len(PLANS)


@pytest.mark.parametrize("name", PLANS)
def test_the_keys_of_a_plan_are_a_contract(name: str) -> None:
    plan = document(PLANS[name])["plans"][0]
    assert {
        "gpu",
        "method",
        "recipe",
        "trainable_parameters",
        "adapter_file_bytes",
        "memory",
        "verdict",
        "changes",
    } <= set(plan)
    memory = plan["memory"]
    assert {"components", "phases", "peak_phase", "allocated_bytes", "reserved_bytes", "device_bytes",
            "device_low_bytes", "device_high_bytes"} <= set(memory)  # fmt: skip
    assert all({"part", "bytes", "basis", "phases", "because"} <= set(c) for c in memory["components"])
    assert all(
        {"option", "before", "after", "device_bytes", "fit", "price"} <= set(c) for c in plan["changes"]
    )
    assert (plan["gpu"] is None) == (plan["verdict"] is None)


@pytest.mark.parametrize("name", PLANS)
def test_bytes_are_integers(name: str) -> None:
    def walk(value: Any, key: str = "") -> None:
        if key == "bytes" or key.endswith("_bytes"):
            assert type(value) is int, (key, value)
        for inner, item in value.items() if isinstance(value, dict) else ():
            walk(item, inner)
        for item in value if isinstance(value, list) else ():
            walk(item)

    walk(document(PLANS[name]))


@pytest.mark.parametrize("name", PLANS)
def test_components_sum_to_the_phases(name: str) -> None:
    memory = document(PLANS[name])["plans"][0]["memory"]
    for phase, size in memory["phases"].items():
        assert size == sum(c["bytes"] for c in memory["components"] if phase in c["phases"])
    at_peak = [c for c in memory["components"] if memory["peak_phase"] in c["phases"]]
    context = sum(c["bytes"] for c in at_peak if c["part"] == "CUDA context")
    slack = sum(c["bytes"] for c in at_peak if c["part"] == "allocator slack")
    assert memory["needed_bytes"] == memory["phases"][memory["peak_phase"]] == max(memory["phases"].values())
    assert memory["device_bytes"] <= memory["needed_bytes"]
    assert memory["reserved_bytes"] == memory["device_bytes"] - context
    assert memory["allocated_bytes"] == memory["reserved_bytes"] - slack
    assert memory["device_low_bytes"] <= memory["device_bytes"] <= memory["device_high_bytes"]


@pytest.mark.parametrize("name", ["full", "lora", "qlora", "inference"])
def test_the_verdict_can_be_recomputed_from_the_document(name: str) -> None:
    plan = document(PLANS[name])["plans"][0]
    memory, usable = plan["memory"], plan["gpu"]["usable_bytes"]
    context = memory["device_bytes"] - memory["reserved_bytes"]
    expected = "does_not_fit"
    if memory["device_high_bytes"] - context <= usable:
        expected = "fits"
    elif memory["reserved_bytes"] <= usable:
        expected = "tight"
    elif memory["allocated_bytes"] <= usable:
        expected = "risky"
    assert plan["verdict"]["fit"] == expected
    assert plan["verdict"]["headroom_bytes"] == usable - memory["reserved_bytes"]


def test_options_that_do_not_apply_are_null() -> None:
    full, qlora = (document(PLANS[name])["plans"][0]["recipe"] for name in ("full", "qlora"))
    assert (full["r"], full["quant_type"], full["target_modules"]) == (None, None, None)
    assert (qlora["r"], qlora["quant_type"], qlora["target_modules"]) == (16, "nf4", "all-linear")
    assert qlora["compute_dtype"] == "float16"
    assert qlora["zero_grad"] == "set-to-none"
