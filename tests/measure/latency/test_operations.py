"""Operations on adapters are timed for real, and leave the model as it was."""

import pytest
import torch
from runs.latency_cases import INT8, LORA, NF4, latency_case, variant

from peftbench.inputs.recipe import AdapterSpec
from peftbench.measure.latency.compare import request_of
from peftbench.measure.latency.operations import BASE, REPEATS, forward, seconds, time_operations
from peftbench.measure.latency.variants import base_weights, build_variants, loaded, with_adapters

SEVERAL = variant("several", "dynamic", adapters=3)
CASE = latency_case(SEVERAL, switching=True)
FOLDER = {"hotswap_adapter", "load_adapter"}
MERGES = {"merge_adapter", "unmerge_adapter"}
BATCHES = {"batch of 4, one adapter", "batch of 4, mixed"}


def operations_of(asked):
    return dict(time_operations(latency_case(asked), asked, request_of(CASE)))


@pytest.fixture(scope="module")
def model():
    built, _ = loaded(base_weights(CASE, SEVERAL))
    return with_adapters(built, LORA, 3, CASE.seed)


def test_all_are_timed():
    found = operations_of(SEVERAL)
    assert found.keys() == {"set_adapter"} | FOLDER | MERGES | BATCHES
    assert all(value > 0 for values in found.values() for value in values)
    assert {len(values) for values in found.values()} == {REPEATS, REPEATS - 1}


@pytest.mark.parametrize("quantization", [NF4, INT8], ids=["nf4", "int8"])
def test_quantized_weights_are_not_merged_again_and_again(quantization):
    found = operations_of(variant("a", "dynamic", adapters=3, quantization=quantization))
    assert found.keys() == {"set_adapter"} | FOLDER | BATCHES


def test_one_adapter_is_not_switched():
    assert operations_of(variant("a", "dynamic")).keys() == FOLDER | MERGES | {
        "batch of 2, one adapter", "batch of 2, mixed"
    }  # fmt: skip


@pytest.mark.parametrize(
    "other", [variant("a"), variant("a", "merged"), variant("a", "dynamic", adapter=AdapterSpec(peft_type="oft"))]
)
def test_others_have_none(other):
    assert operations_of(other) == {}


def test_variants_that_are_built_already_are_left_alone():
    (dynamic,) = build_variants(CASE)
    before = [tensor.clone() for tensor in dynamic.model.parameters()]
    time_operations(CASE, SEVERAL, request_of(CASE))
    assert all(torch.equal(a, b) for a, b in zip(before, dynamic.model.parameters(), strict=True))


def test_a_model_is_frozen_again_after_it_was_switched(model):
    seconds(lambda: model.set_adapter("adapter-2"), model)
    assert model.active_adapters == ["adapter-2"]
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not any(module.training for module in model.modules())
    model.set_adapter("default")


def test_a_mixed_batch_gives_each_row_its_adapter(model):
    prompt = request_of(CASE).prompt
    names = [*model.peft_config, BASE]
    mixed = forward(model.eval(), prompt.repeat(4, 1), names)
    for row, name in enumerate(names[:-1]):
        model.set_adapter(name)
        assert torch.allclose(mixed[row], forward(model, prompt)[0], atol=1e-5)
    with model.disable_adapter():
        assert torch.allclose(mixed[3], forward(model, prompt)[0], atol=1e-5)
    assert (mixed[0] - mixed[1]).abs().max() > 1e-3 < (mixed[0] - mixed[3]).abs().max()
    model.set_adapter("default")
