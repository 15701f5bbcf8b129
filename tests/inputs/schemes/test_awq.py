"""AWQ checkpoints: the buffers of their layers to the byte, LoRA on them, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
from recipes_and_cards import LLAMA_8B, QLORA

from peftbench.base.errors import SpecError
from peftbench.catalog.gpus import find_gpu
from peftbench.decide.from_options import training_recipes
from peftbench.decide.plan.plan import make_plan
from peftbench.decide.recipe import recipe_options
from peftbench.estimate.parts.base_weights import quantized_weights, weight_bytes
from peftbench.estimate.training import estimate_training
from peftbench.inputs.recipe import DType, ParallelismSpec, QuantizationSpec
from peftbench.memory import Part
from peftbench.recipes.export import export

AWQ = QuantizationSpec(quant_type="awq")
L4 = find_gpu("l4")


def buffers_bytes(in_features: int, out_features: int, group: int) -> tuple[int, int]:
    """Of WQLinear_GEMM: qweight as int32 (in, out/8); qzeros as int32 (in/group, out/8) and scales in float16."""
    qweight = in_features * (out_features // 8) * 4
    qzeros = (in_features // group) * (out_features // 8) * 4
    return qweight, qzeros + (in_features // group) * out_features * 2


@pytest.mark.parametrize("group", [32, 64, 128])
def test_a_model_holds_the_buffers_of_its_layers(group: int) -> None:
    spec = replace(AWQ, blocksize=group)
    layers = [(w.count, buffers_bytes(w.in_features, w.out_features, group)) for w in quantized_weights(LLAMA_8B, spec)]
    held = weight_bytes(LLAMA_8B, DType.FLOAT16, spec)
    assert held.quantized_bytes == sum(count * codes for count, (codes, _) in layers)
    assert held.constants_bytes == sum(count * constants for count, (_, constants) in layers)


def test_it_has_no_index_of_inputs_and_groups_of_128() -> None:
    """130 MiB of Llama 3.1 8B: GPTQ's 134.75 without an int32 for each input."""
    assert AWQ.blocksize == 128
    assert weight_bytes(LLAMA_8B, DType.FLOAT16, AWQ).constants_bytes == 130 * 2**20


def test_qlora_is_planned() -> None:
    (recipe,) = training_recipes(("qlora",), {"quant_type": "awq"})
    plan = make_plan(LLAMA_8B, recipe, L4)
    assert plan.time is not None and plan.method == "qlora"
    shown = recipe_options(plan.recipe)
    assert (shown["quant_type"], shown["blocksize"], shown["double_quant"]) == ("awq", 128, None)
    assert "AWQ leaves embeddings" in " ".join(plan.notes)


def test_training_on_it_keeps_what_bitsandbytes_keeps() -> None:
    """AwqGemmFn saves no input, awq.py hands x on as bnb.py does; only the absmax is not there beside the weight."""
    training = replace(QLORA, gradient_checkpointing=False, micro_batch_size=2)
    nf4, awq = (
        {c.part: c.bytes for c in estimate_training(LLAMA_8B, recipe).components}
        for recipe in (training, replace(training, quantization=AWQ))
    )
    assert awq[Part.ACTIVATIONS] == nf4[Part.ACTIVATIONS]
    short = replace(training, sequence_length=16, quantization=AWQ)
    parts = {c.part: c.bytes for c in estimate_training(LLAMA_8B, short).components}
    assert parts[Part.DEQUANTIZATION] == 14_336 * 4_096 * 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"double_quant": True}, "no effect with --quant-type awq"),
        ({"compute_dtype": "float16"}, "no effect with --quant-type awq"),
        ({"blocksize": 256}, "AWQ refuses a block size of 256"),
    ],
)
def test_options_that_it_has_not_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        training_recipes(("qlora",), {"quant_type": "awq", **options})


def test_adalora_dora_and_sharding_are_refused() -> None:
    recipe = replace(QLORA, quantization=AWQ)
    sharded = ParallelismSpec(gpus=2, strategy="fsdp")
    for changed, words in (
        (replace(recipe, adapter=replace(recipe.adapter, use_dora=True)), "no DoRA for AWQ"),
        (replace(recipe, adapter=replace(recipe.adapter, peft_type="adalora")), "no adalora for AWQ"),
        (replace(recipe, parallelism=sharded), "keeps its codes in buffers"),
    ):
        with pytest.raises(SpecError, match=words):
            make_plan(LLAMA_8B, changed, L4)


def test_no_tool_and_no_tier_makes_such_a_checkpoint() -> None:
    with pytest.raises(SpecError, match="a checkpoint of AWQ comes quantized"):
        export("8b", replace(QLORA, quantization=AWQ), "transformers")
    model = pytest.importorskip("peftbench.libraries.model")
    with pytest.raises(Exception, match="a checkpoint of AWQ can be neither dry-run nor measured"):
        model.bitsandbytes_config(AWQ)
