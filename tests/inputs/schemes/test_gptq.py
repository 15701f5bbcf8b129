"""GPTQ checkpoints: their own options, sizes and layers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from recipes_and_cards import LLAMA_8B, QLORA

from peftbench.base.errors import SpecError
from peftbench.decide.from_options import training_recipes
from peftbench.decide.recipe import recipe_options
from peftbench.estimate.parts.base_weights import weight_bytes
from peftbench.estimate.training import estimate_training
from peftbench.inputs.recipe.dtype import DType
from peftbench.inputs.recipe.quantization import QuantizationSpec
from peftbench.memory import Part

GPTQ = QuantizationSpec(quant_type="gptq")


def test_its_groups_have_128_weights_unless_others_are_given() -> None:
    """AutoGPTQ's group_size: 134.75 MiB for Llama 3.1 8B; 264.75 with groups of 64."""
    held = [weight_bytes(LLAMA_8B, DType.BFLOAT16, g).constants_bytes for g in (GPTQ, replace(GPTQ, blocksize=64))]
    assert held == [134.75 * 2**20, 264.75 * 2**20]


def test_constants_of_one_matrix() -> None:
    """float16 scales and packed 4-bit zeros of 8 groups of each of 64 outputs, an int32 for each of 1,024 inputs."""
    assert GPTQ.scheme.constants_bytes(64, 1024, GPTQ) == 8 * 64 * 2 + 8 * 64 // 2 + 1024 * 4


def test_options_of_bitsandbytes_are_neither_shown_nor_exported() -> None:
    shown = recipe_options(replace(QLORA, quantization=GPTQ))
    assert (shown["quant_type"], shown["blocksize"]) == ("gptq", 128)
    assert shown["double_quant"] is None and shown["compute_dtype"] is None


@pytest.mark.parametrize("option", [{"double_quant": False}, {"compute_dtype": "float16"}])
def test_options_of_bitsandbytes_are_refused(option: dict[str, object]) -> None:
    with pytest.raises(SpecError, match="has no effect with --quant-type gptq") as error:
        training_recipes(("qlora",), {"quant_type": "gptq", **option})
    assert "nf4 or fp4" in error.value.hint


def test_an_unknown_group_size_is_refused() -> None:
    with pytest.raises(SpecError, match="GPTQ refuses a block size of 48") as error:
        training_recipes(("qlora",), {"quant_type": "gptq", "blocksize": 48})
    assert "128" in error.value.hint


def test_a_layer_writes_its_weight_out_in_16_bit() -> None:
    """What dequantization takes is the largest matrix, 14,336 × 4,096, without bitsandbytes' absmax."""
    short = replace(QLORA, sequence_length=16, quantization=GPTQ)
    parts = {c.part: c.bytes for c in estimate_training(LLAMA_8B, short).components}
    assert parts[Part.DEQUANTIZATION] == 14_336 * 4_096 * 2
