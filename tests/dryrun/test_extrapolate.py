"""A few layers for all: right where depth is linear, and not used where it is not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")
pytest.importorskip("bitsandbytes")

from peftbench.dryrun.extrapolate import DEPTHS, Extrapolation, extrapolate
from peftbench.dryrun.session import DryRun, DryRunSession
from peftbench.dryrun.workload import Workload
from peftbench.inputs.recipe import AdapterSpec, QuantizationSpec, TrainingSpec
from peftbench.memory import MemoryProfile, Phase

pytestmark = pytest.mark.oracle

DEEP = 7
SIZES = {
    "hidden_size": 1024, "num_attention_heads": 8, "num_key_value_heads": 4, "intermediate_size": 4096,
    "vocab_size": 16384, "max_position_embeddings": 512, "num_hidden_layers": DEEP,
}  # fmt: skip
LORA = AdapterSpec(r=8, target_modules=("all-linear",))
RECIPES = {
    "full": TrainingSpec(sequence_length=512, optimizer="adamw_torch"),
    "full, kept": TrainingSpec(sequence_length=512, gradient_checkpointing=False),
    "lora, kept": TrainingSpec(sequence_length=512, gradient_checkpointing=False, adapter=LORA),
    "qlora": TrainingSpec(sequence_length=512, adapter=LORA, quantization=QuantizationSpec()),
}


@pytest.fixture(scope="module")
def session() -> Iterator[DryRunSession]:
    with DryRunSession() as session:
        yield session


def workload(recipe: TrainingSpec, **changes: Any) -> Workload:
    return Workload(config=json.dumps({"model_type": "llama", **SIZES, **changes}), recipe=recipe)


def sizes(profile: MemoryProfile) -> dict[Phase, int]:
    return {phase: profile.allocated_in(phase) for phase in profile.phases}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "qlora" else [pytest.mark.slow]) for name in RECIPES]
)
def test_what_three_layers_say_is_what_seven_need(session: DryRunSession, name: str) -> None:
    deep = workload(RECIPES[name])
    short = session.extrapolate(deep)
    assert isinstance(short, Extrapolation)
    whole = session.run(deep)
    assert sizes(short.profile) == pytest.approx(sizes(whole.profile), rel=0.003)
    for fact in ("num_parameters", "trainable_parameters", "saved_bytes"):
        assert short.facts[fact] == whole.facts[fact]


def test_layers_that_differ_are_all_run(session: DryRunSession) -> None:
    """A mixture of experts with one plain layer, which the first four do not show."""
    experts = {"model_type": "qwen3_moe", "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 128}
    found = session.extrapolate(workload(RECIPES["lora, kept"], **experts, mlp_only_layers=[5]))
    assert isinstance(found, DryRun)


def test_sizes_that_are_not_linear_are_all_run(session: DryRunSession) -> None:
    """Every other layer attends within a window, which has a mask: the third layer differs from the second."""
    kinds = ["sliding_attention", "full_attention"] * DEEP
    windows = {"model_type": "qwen3", "sliding_window": 16, "use_sliding_window": True, "layer_types": kinds[:DEEP]}
    found = session.extrapolate(workload(RECIPES["full, kept"], **windows))
    assert isinstance(found, DryRun)


def test_a_shallow_model_is_run_as_it_is(session: DryRunSession) -> None:
    found = session.extrapolate(workload(RECIPES["qlora"], num_hidden_layers=DEPTHS[-1]))
    assert isinstance(found, DryRun)


def test_layers_of_a_workload_are_those_that_are_run(session: DryRunSession) -> None:
    few = session.trace(replace(workload(RECIPES["full"]), layers=2))
    assert few.facts["num_parameters"] < few.facts["full_num_parameters"]


def test_named_layers_are_not_cut_off() -> None:
    """PEFT ignores a name without a module beside one that has some: few layers would look linear."""
    adapter = replace(LORA, target_modules=("v_proj", "model.layers.6.mlp.up_proj"))
    assert extrapolate(workload(replace(RECIPES["lora, kept"], adapter=adapter)), None, pytest.fail) is None
