"""GPTQ checkpoints: their own options, sizes and layers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from recipes_and_cards import LLAMA_8B, QLORA

from peftbench.base.errors import SpecError
from peftbench.catalog.models import find_model
from peftbench.decide.from_options import training_recipes
from peftbench.decide.plan.plan import make_plan
from peftbench.decide.recipe import recipe_options
from peftbench.estimate.parts.base_weights import weight_bytes
from peftbench.estimate.training import estimate_training
from peftbench.inputs.model.config_json import read_config
from peftbench.inputs.model.weight import Role
from peftbench.inputs.model.weights import weights_of
from peftbench.inputs.recipe import DType, QuantizationSpec
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


MIXTRAL = find_model("8x7b")
FALCON = read_config(
    {"model_type": "falcon", "vocab_size": 320, "hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4},
    "falcon", "a test",
)  # fmt: skip


def test_experts_are_quantized_one_by_one() -> None:
    """As in TheBloke/Mixtral-8x7B-v0.1-GPTQ: w1, w2 and w3 of each expert have constants of their own."""
    held = weight_bytes(MIXTRAL, DType.BFLOAT16, GPTQ)
    assert held.experts_bytes == 0
    assert held.quantized_bytes == sum(w.total for w in QUANTIZED) // 2
    gate, down = (GPTQ.scheme.constants_bytes(*shape, GPTQ) for shape in ((14_336, 4_096), (4_096, 14_336)))
    attention = 2 * sum(GPTQ.scheme.constants_bytes(out, 4_096, GPTQ) for out in (4_096, 1_024))
    assert held.constants_bytes == 32 * (8 * (2 * gate + down) + attention)


QUANTIZED = [w for w in weights_of(MIXTRAL) if w.role in (Role.LINEAR, Role.EXPERTS)]


def test_the_notes_on_experts_speak_of_the_checkpoint() -> None:
    notes = " ".join(make_plan(MIXTRAL, replace(QLORA, quantization=GPTQ)).notes)
    assert "bitsandbytes" not in notes and "checkpoint of GPTQ holds each expert" in notes


def test_one_expert_at_a_time_is_written_out() -> None:
    moving = estimate_training(MIXTRAL, replace(QLORA, sequence_length=16, quantization=GPTQ)).components
    assert max(c.bytes for c in moving if c.part is Part.DEQUANTIZATION) == 14_336 * 4_096 * 2


def test_falcons_own_class_of_linear_layers_is_quantized() -> None:
    linear = sum(w.total for w in weights_of(FALCON) if w.role is Role.LINEAR)
    assert weight_bytes(FALCON, DType.BFLOAT16, GPTQ).quantized_bytes == linear // 2
    assert weight_bytes(FALCON, DType.BFLOAT16, QuantizationSpec()).quantized_bytes == 0


def test_what_lies_outside_of_the_decoder_layers_is_not_quantized() -> None:
    """OPT-350m projects its embeddings: bitsandbytes reaches that, GPTQ's blocks do not have it."""
    model = find_model("opt-350m")
    outside = sum(w.total for w in weights_of(model) if w.role is Role.LINEAR and w.layers is None)
    nf4, gptq = (weight_bytes(model, DType.BFLOAT16, q).quantized_bytes for q in (QuantizationSpec(), GPTQ))
    assert nf4 - gptq == outside // 2 > 0


def test_lora_runs_as_on_a_plain_layer() -> None:
    """PEFT's gptq.py casts x for each target, and under autocast A's product keeps that copy; bnb.py leaves x alone."""
    training = replace(QLORA, gradient_checkpointing=False, micro_batch_size=4)
    nf4, gptq = (
        sum(c.bytes for c in estimate_training(LLAMA_8B, recipe).components if c.part is Part.ACTIVATIONS)
        for recipe in (training, replace(training, quantization=GPTQ))
    )
    tokens, shared = 4 * training.sequence_length, (2 * 4_096 + 4_096) * 2  # k, v and up beside q and gate
    assert gptq - nf4 > 32 * tokens * shared


@pytest.mark.parametrize("change", [{"use_dora": True}, {"peft_type": "ia3", "r": None}])
def test_adapters_that_peft_has_no_layer_for_are_refused(change: dict[str, object]) -> None:
    adapter = replace(QLORA.adapter, **change)
    with pytest.raises(SpecError, match=r"PEFT has no \w+ for GPTQ") as error:
        make_plan(LLAMA_8B, replace(QLORA, adapter=adapter, quantization=GPTQ))
    assert "--method qlora" in error.value.hint
