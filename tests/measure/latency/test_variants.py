"""Variants for latency: the same weights, frozen alike, and a merge that computes what the adapter beside it does."""

import bitsandbytes
import pytest
import torch
from runs.latency_cases import BASE, DYNAMIC, INT8, LORA, MERGED, NF4, latency_case, variant

from peftbench.base.errors import MeasureError, SpecError
from peftbench.inputs.recipe import AdapterSpec, DType
from peftbench.measure.child.meter import weights_bytes
from peftbench.measure.latency.compare import logit_differences, peak_bytes, request_of
from peftbench.measure.latency.variants import build_variants, refuse_unlike

STORED = {"float32": None, "int8": INT8, "nf4": NF4}


def build(*variants, **options):
    case = latency_case(*variants, **options)
    built = list(build_variants(case))
    return request_of(case), built


def trio(quantization):
    return (
        variant("base", quantization=quantization),
        variant("dynamic", "dynamic", quantization=quantization),
        variant("merged", "merged", quantization=quantization),
    )


def base_parameters(model):
    return {name: tensor for name, tensor in model.named_parameters() if "lora_" not in name}


@pytest.fixture(scope="module", params=STORED)
def built(request):
    """A request and base, dynamic and merged, in each way of storing weights."""
    return request.param, *build(*trio(STORED[request.param]))


def test_base_and_dynamic_have_one_set_of_weights(built):
    _, _, (base, dynamic, merged) = built
    of_base, of_dynamic = (
        {tensor.data_ptr() for tensor in base_parameters(each.model).values()} for each in (base, dynamic)
    )
    assert of_base == of_dynamic
    assert not of_base & {tensor.data_ptr() for tensor in merged.model.parameters()}
    assert weights_bytes(dynamic.model) > weights_bytes(base.model) == weights_bytes(merged.model)


def test_running_and_merging_leave_the_shared_weights_alone(built):
    _, request, (base, dynamic, merged) = built
    before = [tensor.clone() for tensor in base.model.parameters()]
    nbytes = weights_bytes(base.model)
    logit_differences([base, dynamic, merged], request)
    assert all(torch.equal(a, b) for a, b in zip(before, base.model.parameters(), strict=True))
    assert weights_bytes(base.model) == nbytes


def test_merged_computes_what_dynamic_does(built):
    stored, request, variants = built
    differences = logit_differences(variants, request)
    assert differences["dynamic"] == 0.0
    if stored == "float32":  # the others quantize once more
        assert differences["merged"] < 1e-4 < differences["base"]
    else:
        assert 1e-4 < differences["merged"] < 1.0


def test_every_variant_is_frozen_alike(built):
    _, _, variants = built
    for each in variants:
        assert not any(parameter.requires_grad for parameter in each.model.parameters())
        assert not any(module.training for module in each.model.modules())
    refuse_unlike(variants)


def test_one_that_is_not_frozen_is_refused():
    _, (base, dynamic) = build(BASE, DYNAMIC)
    dynamic.model.set_adapter("default")  # as PEFT leaves it: trainable
    with pytest.raises(MeasureError, match="dynamic is not frozen"):
        refuse_unlike([base, dynamic])
    dynamic.model.requires_grad_(False).train()
    with pytest.raises(MeasureError, match="dynamic is not frozen"):
        refuse_unlike([base, dynamic])


def test_a_base_without_adapters_beside_it_is_frozen_too():
    _, (base,) = build(BASE)
    refuse_unlike([base])


def test_several_adapters_compute_what_the_first_does_and_take_more():
    _, (dynamic, several) = build(DYNAMIC, variant("several", "dynamic", adapters=4))
    request = request_of(latency_case())
    assert list(several.model.peft_config) == ["default", "adapter-2", "adapter-3", "adapter-4"]
    assert logit_differences([dynamic, several], request)["several"] == 0.0
    base, one = weights_bytes(several.model.get_base_model()), weights_bytes(dynamic.model)
    own = sum(tensor.nbytes for name, tensor in dynamic.model.named_parameters() if "lora_" in name)
    assert base == one + 3 * own
    several.model.set_adapter("adapter-2")
    assert logit_differences([dynamic, several], request)["several"] > 1e-3


def test_bytes_are_those_that_bitsandbytes_stores():
    """Codes of half a byte, a scale of a byte for 64 and a float for 256 of those; the table and the offset."""
    _, (plain, stored) = build(BASE, variant("nf4", quantization=NF4))
    matrices = [module for module in stored.model.modules() if isinstance(module, bitsandbytes.nn.Linear4bit)]
    numbers = [module.in_features * module.out_features for module in matrices]
    blocks = [number // 64 for number in numbers]
    nested = [max(1, -(-block // 256)) for block in blocks]
    constants = sum(block + 4 * nest + 4 for block, nest in zip(blocks, nested, strict=True))
    tables = weights_bytes(stored.model) - (
        weights_bytes(plain.model) - 4 * sum(numbers) + sum(numbers) // 2 + constants
    )
    assert 0 < tables <= len(numbers) * (16 + 256) * 4


def test_a_longer_prompt_takes_more_memory():
    request, (base,) = build(BASE)
    longer = request_of(latency_case(prompt_tokens=64))
    assert 0 < peak_bytes(base.model, request) < peak_bytes(base.model, longer)


# ── traps ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_no_4_bit_layer_may_be_packed(monkeypatch):
    """On a CPU with AVX512-BF16, which this one is made to look like, the first forward would rewrite the weights."""
    monkeypatch.setattr(bitsandbytes.nn.modules, "has_avx512bf16", lambda: True)
    assert bitsandbytes.nn.Linear4bit(64, 64).support_avx512bf16_for_cpu
    request, variants = build(*trio(NF4))
    layers = [
        module for each in variants for module in each.model.modules() if isinstance(module, bitsandbytes.nn.Linear4bit)
    ]
    assert layers and not any(layer.support_avx512bf16_for_cpu for layer in layers)
    exact = [dequantized(layer) for layer in layers]
    logit_differences(variants, request)
    assert all(torch.equal(a, dequantized(layer)) for a, layer in zip(exact, layers, strict=True))


def dequantized(layer):
    return bitsandbytes.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)


@pytest.mark.parametrize(
    ("variants", "says"),
    [
        ([variant("a", "merged", adapter=AdapterSpec(peft_type="ia3"), quantization=NF4)], "cannot merge ia3 into nf4"),
        ([variant("a", "merged", adapter=AdapterSpec(peft_type="adalora"), quantization=NF4)], "adalora into nf4"),
        ([variant("a", "merged", adapter=AdapterSpec(peft_type="fourierft"), quantization=NF4)], "fourierft into nf4"),
        ([variant("a", "dynamic", adapter=AdapterSpec(peft_type="prompt_tuning"))], "lengthens the prompt"),
        ([], "nothing to compare"),
    ],
)
def test_what_cannot_be_built_is_told_before_anything_runs(variants, says):
    with pytest.raises(MeasureError, match=says):
        build(*variants)


@pytest.mark.parametrize("route", ["dequantized", "requantized"])
def test_routes_that_end_in_another_are_refused_before_a_child_is_started(route):
    with pytest.raises(SpecError, match=f"{route} is not measured"):
        latency_case(variant("a", route, quantization=NF4))


@pytest.mark.parametrize("peft_type", ["ia3", "adalora", "fourierft", "oft"])
def test_other_types_merge_into_16_and_32_bit(peft_type):
    adapter = AdapterSpec(peft_type=peft_type)
    request, variants = build(
        BASE, variant("dynamic", "dynamic", adapter=adapter), variant("merged", "merged", adapter=adapter)
    )
    differences = logit_differences(variants, request)
    assert differences["merged"] < 1e-4 < differences["base"]


def test_adapter_weights_have_the_dtype_that_was_asked():
    adapter = AdapterSpec(r=4, target_modules=LORA.target_modules, dtype=DType.BFLOAT16)
    _, (dynamic,) = build(variant("a", "dynamic", adapter=adapter, adapters=2, quantization=NF4))
    own = [tensor for name, tensor in dynamic.model.named_parameters() if "lora_" in name]
    assert {tensor.dtype for tensor in own} == {torch.bfloat16}
    assert all(tensor.any() for tensor in own)


def test_logits_that_are_no_numbers_are_refused():
    request, (base,) = build(BASE)
    with torch.no_grad():
        base.model.model.norm.weight.fill_(float("inf"))
    with pytest.raises(MeasureError, match="no numbers"):
        logit_differences([base], request)


def test_merged_of_a_base_of_its_own_needs_no_dynamic():
    request, variants = build(BASE, MERGED)
    assert logit_differences(variants, request) == {"base": None, "merged": None}
