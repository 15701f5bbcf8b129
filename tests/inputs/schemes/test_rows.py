"""Rows of inputs/schemes/: what each library stores of a matrix of 512 × 1,024, and what cannot be trained.

The sizes are those that the libraries' own layers had, made on a CPU: torchao 0.18, optimum-quanto 0.2.7, hqq 0.2.8,
aqlm 1.1.7, and FP8Linear of transformers 5.23. tests/oracles/weights/test_scheme_layers.py makes them again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from recipes_and_cards import LLAMA_8B, QLORA

from peftbench.base.errors import SpecError
from peftbench.catalog.gpus import find_gpu
from peftbench.catalog.models import find_model
from peftbench.decide.card import settle_inference, settle_training
from peftbench.decide.from_options import training_recipes
from peftbench.estimate.parts.base_weights import quantized_weights, weight_bytes
from peftbench.estimate.training import estimate_training
from peftbench.inputs.model.weights import Role
from peftbench.inputs.recipe import DType, InferenceSpec, QuantizationSpec
from peftbench.inputs.schemes.scheme import QUANT_TYPES
from peftbench.memory import Part
from peftbench.recipes.export import export

OUT, IN = 512, 1024


def stored(quant_type: str, **options: Any) -> tuple[int, int]:
    """Bytes of codes and of constants of the matrix."""
    spec = QuantizationSpec(quant_type=quant_type, **options)
    return spec.code_bytes(OUT * IN), spec.scheme.constants_bytes(OUT, IN, spec)


@pytest.mark.parametrize(
    ("quant_type", "options", "sizes"),
    [
        ("hqq", {"bits": 8}, (524_288, 32_768)),
        ("hqq", {}, (262_144, 32_768)),
        ("hqq", {"bits": 3}, (209_920, 32_768)),
        ("hqq", {"bits": 2}, (131_072, 32_768)),
        ("hqq", {"bits": 1}, (65_536, 32_768)),
        ("eetq", {}, (524_288, 1_024)),
        ("aqlm-1x16", {}, (131_072, 1_048_576 + 1_024)),
        ("aqlm-2x8", {}, (131_072, 8_192 + 1_024)),
        ("fp8", {}, (524_288, 4 * 8 * 4)),
        ("fp8", {"blocksize": -1}, (524_288, 4)),
        ("torchao-int8", {}, (524_288, 2_048 + 512)),
        ("torchao-float8", {}, (524_288, 2_048)),
        ("quanto-int8", {}, (524_288, 1_028)),
        ("quanto-float8", {}, (524_288, 1_028)),
        ("quanto-int4", {}, (262_144, 16_388)),
        ("quanto-int2", {}, (131_072, 16_388)),
        ("gguf", {}, (294_912, 0)),
        ("gguf", {"bits": 8}, (557_056, 0)),
        ("gptq", {"bits": 8}, (524_288, 8 * 512 * 3 + 4 * 1_024)),
        ("gptq", {"bits": 3}, (196_608, 8 * 512 * 2 + 8 * 512 * 3 // 8 + 4 * 1_024)),
    ],
)
def test_a_matrix_takes_what_the_library_stores(
    quant_type: str, options: dict[str, Any], sizes: tuple[int, int]
) -> None:
    assert stored(quant_type, **options) == sizes


@pytest.mark.parametrize("quant_type", QUANT_TYPES)
def test_every_row_is_priced_or_says_why_it_is_not_trained(quant_type: str) -> None:
    spec = QuantizationSpec(quant_type=quant_type)
    recipe = replace(QLORA, quantization=spec)
    if spec.scheme.untrainable:
        with pytest.raises(SpecError, match=r"16-bit weights\.|does not train|refuses"):
            settle_training(LLAMA_8B, recipe, None)
        return
    settled, _ = settle_training(LLAMA_8B, recipe, find_gpu("h100-sxm"))
    assert estimate_training(LLAMA_8B, settled).needed_bytes > weight_bytes(LLAMA_8B, DType.BFLOAT16, spec).total_bytes


def parts(quant_type: str) -> dict[Part, int]:
    """Bytes in the backward pass of the 8B model, without checkpointing."""
    spec = QuantizationSpec(quant_type=quant_type)
    recipe = replace(QLORA, gradient_checkpointing=False, sequence_length=16, quantization=spec)
    found: dict[Part, int] = {}
    for each in estimate_training(LLAMA_8B, recipe).components:
        found[each.part] = max(each.bytes, found.get(each.part, 0))
    return found


def test_torchao_keeps_a_written_copy_of_every_weight() -> None:
    """autograd saves the cast weight: seven of Llama's matrices in every layer, in 16 bit."""
    written = 2 * sum(w.total for w in quantized_weights(LLAMA_8B, QuantizationSpec(quant_type="torchao-int8")))
    assert parts("torchao-int8")[Part.DEQUANTIZATION] == pytest.approx(written, rel=0.01)


def test_eetq_makes_an_identity_in_float32() -> None:
    """14,336 × 14,336 for down_proj, beside its cast."""
    assert parts("eetq")[Part.DEQUANTIZATION] == 6 * 14_336**2


def test_hqq_has_three_matrices_while_it_dequantizes() -> None:
    assert parts("hqq")[Part.DEQUANTIZATION] == 3 * 2 * 14_336 * 4_096


def test_mxfp4_is_of_experts_alone() -> None:
    found = quantized_weights(find_model("gpt-oss-20b"), QuantizationSpec(quant_type="mxfp4"))
    assert found and {weight.role for weight in found} == {Role.EXPERTS}


def test_gpt2s_own_class_of_linear_layers_is_left_alone() -> None:
    gpt2 = find_model("gpt2")
    assert quantized_weights(gpt2, QuantizationSpec())
    assert not quantized_weights(gpt2, QuantizationSpec(quant_type="hqq"))


@pytest.mark.parametrize(("quant_type", "card"), [("fp8", "a100-80gb"), ("mxfp4", "v100-32gb"), ("fbgemm-fp8", "l4")])
def test_a_card_without_kernels_is_refused(quant_type: str, card: str) -> None:
    request = InferenceSpec(quantization=QuantizationSpec(quant_type=quant_type))
    with pytest.raises(SpecError, match=r"needs compute capability \d\.\d; .* has \d\.\d"):
        settle_inference(LLAMA_8B, request, find_gpu(card))


def test_bits_belong_to_schemes_that_have_a_choice() -> None:
    with pytest.raises(SpecError, match="--bits has no effect with --quant-type nf4"):
        training_recipes(("qlora",), {"bits": 8})
    with pytest.raises(SpecError, match="HQQ has no codes of 5 bits") as error:
        training_recipes(("qlora",), {"quant_type": "hqq", "bits": 5})
    assert "1, 2, 3, 4, 8" in error.value.hint


def test_bits_do_not_outlive_their_scheme() -> None:
    base = replace(QLORA, quantization=QuantizationSpec(quant_type="int8"))
    (recipe,) = training_recipes(("qlora",), {"quant_type": "gptq"}, base)
    assert recipe.quantization is not None and recipe.quantization.bits == 4


def test_adapters_without_a_price_are_refused() -> None:
    for quant_type, peft_type, words in (("hqq", "ia3", "PEFT has no ia3"), ("fp8", "ia3", "is not priced")):
        adapter = replace(QLORA.adapter, peft_type=peft_type, r=None)
        recipe = replace(QLORA, adapter=adapter, quantization=QuantizationSpec(quant_type=quant_type))
        with pytest.raises(SpecError, match=words):
            settle_training(LLAMA_8B, recipe, None)


def test_no_tool_writes_them() -> None:
    with pytest.raises(SpecError, match="asks for weights of HQQ"):
        export("8b", replace(QLORA, quantization=QuantizationSpec(quant_type="hqq")), "transformers")
