"""What would silently give wrong figures is prevented or refused; each test fails where its guard is taken away."""

from dataclasses import replace

import pytest
import torch
from runs.tiny_llama import tiny_llama

from peftbench.base.errors import MeasureError
from peftbench.inputs.comparison import QualityCase, Variant
from peftbench.inputs.recipe import AdapterSpec, DType, QuantizationSpec
from peftbench.measure.child.quantize import copy_of, quantized_layers, written_out
from peftbench.measure.quality.adapter import Adapter, attach, build_variant, merge, new_adapter, state_of
from peftbench.measure.quality.checks import check
from peftbench.measure.quality.scores import logits_of

NF4 = QuantizationSpec(compute_dtype=DType.FLOAT32)
LORA = AdapterSpec(r=4, target_modules=("all-linear",))
TOKENS = torch.arange(32)


def case(*variants, **more):
    return QualityCase(id="test", model="tiny", variants=variants, **more)


def variant(route="merged", peft_type="lora", quantization=NF4, **more):
    spec = LORA if peft_type == "lora" else AdapterSpec(peft_type=peft_type, **more)
    return Variant(name="mine", quantization=quantization, route=route, adapter=spec)


@pytest.fixture(scope="module")
def reference():
    return tiny_llama()


@pytest.fixture(scope="module")
def adapter(reference):
    """LoRA that changes what is predicted."""
    model = new_adapter(copy_of(reference, None, own=True), LORA)
    torch.manual_seed(0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(std=0.05)
    return Adapter(LORA, state_of(model))


# ── packed weights ──────────────────────────────────────────────────────────────────────────────────────────────────


def pack(model):
    """What bitsandbytes does on a CPU with AVX512-BF16 in the first forward pass; the code runs on any."""
    from bitsandbytes.functional import _convert_weight_packed_for_cpu

    for layer in quantized_layers(model).values():
        weight = layer.weight
        weight.data, weight.quant_state = _convert_weight_packed_for_cpu(weight.data, weight.quant_state)


@pytest.fixture
def avx512_bf16(monkeypatch):
    """Layers that are made now believe to be on such a CPU, whatever this one is."""
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: True)


def test_no_layer_of_a_variant_packs_itself(reference, avx512_bf16):
    model = copy_of(reference, DType.FLOAT32, NF4)
    before = {name: layer.weight.data.clone() for name, layer in quantized_layers(model).items()}
    logits_of(model, TOKENS)
    for name, layer in quantized_layers(model).items():
        assert not layer.support_avx512bf16_for_cpu
        assert torch.equal(layer.weight.data, before[name])


def test_a_variant_predicts_what_its_written_out_weights_do(reference, avx512_bf16):
    """On a CPU that packs, bfloat16 constants would be off by 0.3 %."""
    model = copy_of(reference, DType.FLOAT32, NF4)
    plain = copy_of(reference, DType.FLOAT32)
    for name, layer in quantized_layers(model).items():
        plain.get_submodule(name).weight = torch.nn.Parameter(written_out(layer), requires_grad=False)
    assert torch.allclose(logits_of(model, TOKENS), logits_of(plain, TOKENS), atol=1e-4)


def test_merging_after_an_evaluation_is_exact(reference, adapter, avx512_bf16):
    early = build_variant(reference, variant(), adapter)
    late = attach(copy_of(reference, DType.FLOAT32, NF4), adapter)
    logits_of(late, TOKENS)
    assert torch.equal(logits_of(early, TOKENS), logits_of(merge(late), TOKENS))


def test_packed_weights_are_neither_merged_nor_read(reference, adapter):
    model = copy_of(reference, DType.FLOAT32, NF4)
    adapted = attach(model, adapter)
    pack(adapted)
    with pytest.raises(MeasureError, match="packed by a forward pass"):
        merge(adapted)
    with pytest.raises(MeasureError, match="packed by a forward pass"):
        written_out(next(iter(quantized_layers(adapted).values())))


# ── block sizes, PEFT's choice of layers ────────────────────────────────────────────────────────────────────────────


def test_rows_that_are_no_multiple_of_the_blocks_are_refused_before_anything_runs():
    base = Variant(name="wide-blocks", quantization=replace(NF4, blocksize=64))
    check(case(base), tiny_llama(width=64))
    with pytest.raises(MeasureError, match=r"wide-blocks: .*64 inputs, no multiple of its block size of 128"):
        check(case(replace(base, quantization=replace(NF4, blocksize=128))), tiny_llama(width=64))


def test_a_base_that_does_not_say_that_it_is_quantized_gets_no_adapter(reference):
    for quantization, said in ((NF4, "is_loaded_in_4bit"), (QuantizationSpec(quant_type="int8"), "is_loaded_in_8bit")):
        model = copy_of(reference, DType.FLOAT32, quantization)
        setattr(model, said, False)
        with pytest.raises(MeasureError, match="PEFT would use its layers for plain weights"):
            new_adapter(model, LORA)


@pytest.mark.parametrize(
    ("quant_type", "kind"), [("nf4", "Linear4bit"), ("fp4", "Linear4bit"), ("int8", "Linear8bitLt")]
)
def test_peft_puts_its_own_quantized_layers_on_variants(reference, quant_type, kind):
    model = copy_of(reference, DType.FLOAT32, QuantizationSpec(quant_type=quant_type, compute_dtype=DType.FLOAT32))
    adapted = new_adapter(model, LORA)
    found = {type(m).__name__ for m in adapted.modules() if type(m).__module__ == "peft.tuners.lora.bnb"}
    assert found == {kind}


def test_the_reference_never_says_that_it_is_quantized(reference):
    copy_of(reference, DType.FLOAT32, NF4)
    assert not quantized_layers(reference) and not getattr(reference, "is_loaded_in_4bit", False)


# ── types that cannot be merged ─────────────────────────────────────────────────────────────────────────────────────

TWO = (("num_virtual_tokens", 2),)
INT8 = QuantizationSpec(quant_type="int8")


@pytest.mark.parametrize(
    ("peft_type", "quantization", "options"),
    [
        *(
            (name, NF4, ())
            for name in ("ia3", "adalora", "randlora", "fourierft", "gralora", "c3a", "vblora", "loha", "lokr", "hra")
        ),
        *((name, INT8, ()) for name in ("ia3", "adalora", "fourierft", "loha")),
        *((name, None, ()) for name in ("lily",)),
        *((name, None, TWO) for name in ("prompt_tuning", "prefix_tuning", "p_tuning")),
    ],
)
def test_a_type_that_cannot_be_merged_is_named_before_anything_runs(reference, peft_type, quantization, options):
    with pytest.raises(MeasureError, match=f"type {peft_type} cannot be merged on"):
        check(case(variant("merged", peft_type, quantization, options=options)), reference)


@pytest.mark.parametrize("peft_type", ["c3a", "deft", "hra", "peanut"])
def test_a_type_that_merges_without_an_error_into_garbage_is_refused(reference, peft_type):
    """PEFT 0.21 adds to the codes of 8-bit weights."""
    with pytest.raises(MeasureError, match=f"{peft_type} cannot be merged on int8 weights"):
        check(case(variant("merged", peft_type, INT8)), reference)


@pytest.mark.parametrize("route", ["dynamic", "merged", "dequantized", "requantized"])
@pytest.mark.parametrize("peft_type", ["lora", "oft", "miss"])
@pytest.mark.parametrize("quantization", [NF4, INT8])
def test_types_that_can_be_merged_are_not_refused(reference, peft_type, quantization, route):
    check(case(variant(route, peft_type, quantization)), reference)


def test_ia3_is_merged_where_the_weights_are_plain(reference):
    check(case(variant("merged", "ia3", None), replace(variant("dequantized", "ia3"), name="other")), reference)


# ── comparisons that make no sense ──────────────────────────────────────────────────────────────────────────────────


def test_standards_in_a_circle_are_refused(reference):
    a, b = (Variant(name=name, quantization=NF4, against=other) for name, other in ("ab", "ba"))
    with pytest.raises(MeasureError, match="each is the standard of another: a, b"):
        check(case(a, b), reference)


def test_adapters_that_were_never_trained_are_refused(reference):
    with pytest.raises(MeasureError, match="steps to be trained in"):
        check(case(variant(), adapter_steps=0), reference)


def test_a_second_adapter_needs_a_standard_of_its_own(reference):
    other = replace(variant("dynamic", "oft"), name="other")
    with pytest.raises(MeasureError, match="other has another adapter than mine"):
        check(case(variant(), other), reference)


def test_a_layer_by_layer_search_needs_a_quantized_variant(reference):
    with pytest.raises(MeasureError, match="by_layer: half is not quantized"):
        check(case(Variant(name="half", dtype=DType.BFLOAT16), by_layer="half"), reference)
