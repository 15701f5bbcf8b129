"""Bytes of base weights: figures that were measured or follow from the storage format."""

from dataclasses import replace

import pytest

from peftbench.estimate.parts.base_weights import checkpoint_bytes, quantized_weights, trained_weights, weight_bytes
from peftbench.inputs.model.config_json import read_config
from peftbench.inputs.model.weights import num_parameters
from peftbench.inputs.recipe import DType, QuantizationSpec

MISTRAL_7B = {
    "model_type": "mistral", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
}  # fmt: skip
MIXTRAL_8X7B = MISTRAL_7B | {"model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2}
LLAMA_8B = MISTRAL_7B | {"model_type": "llama", "vocab_size": 128256}
LLAMA_70B = LLAMA_8B | {
    "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64,
}  # fmt: skip
FALCON = {
    "model_type": "falcon", "vocab_size": 65024, "hidden_size": 4544, "num_hidden_layers": 32,
    "num_attention_heads": 71,
}  # fmt: skip
NF4 = QuantizationSpec()


def spec(config):
    return read_config(config, "a model", "a test")


def test_llama_8b_in_nf4_is_not_4_gb():
    """6.98 of 8.03 billion weights are quantized; embeddings and head stay in 16 bit and weigh 2.1 GB."""
    held = weight_bytes(spec(LLAMA_8B), DType.BFLOAT16, NF4)
    assert held.quantized_bytes == 6_979_321_856 // 2
    assert held.unquantized_bytes == 2 * (8_030_261_248 - 6_979_321_856)
    assert held.total_bytes == pytest.approx(5.70e9, rel=0.005)


def test_double_quantization_costs_an_eighth_of_a_bit_a_weight():
    """Dettmers et al. 2023 (QLoRA): 0.5 bit a weight becomes 8/64 + 32/(64*256) = 0.127 bit."""
    model = spec(LLAMA_8B)
    plain, double = (weight_bytes(model, DType.BFLOAT16, replace(NF4, double_quant=d)) for d in (False, True))
    assert plain.constants_bytes * 8 / (2 * plain.quantized_bytes) == pytest.approx(0.5, rel=1e-4)
    assert double.constants_bytes * 8 / (2 * double.quantized_bytes) == pytest.approx(0.127, rel=1e-2)


def test_mistral_7b_at_rest():
    """fms-acceleration: 4.3065 GB with float32 LoRA r=16 on q, k, v, o, AdamW and 17 MB of workspace."""
    lora = 32 * 16 * (2 * (4096 + 4096) + 2 * (4096 + 1024))
    held = weight_bytes(spec(MISTRAL_7B), DType.BFLOAT16, NF4).total_bytes + 12 * lora
    assert held == pytest.approx(4.3065e9 - 17e6, rel=0.001)


def test_gptq_is_a_little_larger_than_nf4():
    """fms-acceleration, Mistral-7B: the same run peaks 30.3 MB higher from a GPTQ checkpoint than from NF4."""
    gptq = QuantizationSpec(quant_type="gptq", blocksize=128)
    held = [weight_bytes(spec(MISTRAL_7B), DType.FLOAT16, kind).total_bytes for kind in (gptq, NF4)]
    assert held[0] - held[1] == pytest.approx(16.404149e9 - 16.373838e9, rel=0.002)


def test_mixtral_experts_are_not_quantized():
    """transformers 5 fuses experts into 3-D parameters: 45.1 of 46.7 billion weights stay in 16 bit."""
    model = spec(MIXTRAL_8X7B)
    held = weight_bytes(model, DType.BFLOAT16, NF4)
    assert held.experts_bytes == pytest.approx(2 * 45.1e9, rel=0.001)
    assert held.total_bytes > 85 * 2**30


def test_upcast_doubles_what_is_not_quantized():
    """+1.96 GiB for 8B: embeddings, head and norms in float32."""
    model = spec(LLAMA_8B)
    plain = weight_bytes(model, DType.BFLOAT16, NF4)
    upcast = weight_bytes(model, DType.BFLOAT16, replace(NF4, upcast_unquantized=True))
    assert upcast.unquantized_bytes == 2 * plain.unquantized_bytes
    assert upcast.total_bytes - plain.total_bytes == pytest.approx(1.96 * 2**30, rel=0.002)


def test_falcon_is_not_quantized_at_all():
    """Its linear layers are a subclass of nn.Linear, which transformers 5 does not replace."""
    model = spec(FALCON)
    assert quantized_weights(model, NF4) == ()
    assert weight_bytes(model, DType.BFLOAT16, NF4) == weight_bytes(model, DType.BFLOAT16)


def test_70b_checkpoint_is_141_gb():
    assert checkpoint_bytes(spec(LLAMA_70B), DType.BFLOAT16) == pytest.approx(141.1e9, rel=0.001)


def test_full_fine_tuning_trains_every_parameter():
    model = spec(MIXTRAL_8X7B)
    assert sum(group.numel for group in trained_weights(model, DType.BFLOAT16)) == num_parameters(model)


@pytest.mark.parametrize(("kind", "index"), [("gptq", 4), ("awq", 0)])
def test_a_row_can_be_one_group(kind, index):
    """group_size -1: a scale and a zero for each output, as TheBloke's Mixtral-8x7B-GPTQ has them."""
    whole, halves = (QuantizationSpec(quant_type=kind, blocksize=size) for size in (-1, 128))
    assert whole.scheme.constants_bytes(256, 256, whole) == 256 * 2 + 128 + index * 256
    assert halves.scheme.constants_bytes(256, 256, halves) == 2 * (256 * 2 + 128) + index * 256
