"""State-space layers: what they keep, what is never quantized or adapted, and what a plan says about that."""

import pytest

from peftbench.base.errors import SpecError
from peftbench.decide.card import settle_training
from peftbench.estimate.parts.base_weights import quantized_weights
from peftbench.estimate.parts.mixing import cache_bytes
from peftbench.estimate.peft_types.tensors import adapted_weights
from peftbench.estimate.training import estimate_training
from peftbench.inputs.model.config_json import read_config
from peftbench.inputs.recipe import AdapterSpec, DType, QuantizationSpec, TrainingSpec

MAMBA2 = {
    "model_type": "mamba2", "hidden_size": 64, "num_hidden_layers": 3, "vocab_size": 80, "num_heads": 8, "head_dim": 16,
    "n_groups": 2, "state_size": 8, "conv_kernel": 4, "chunk_size": 256,
}  # fmt: skip
MODEL = read_config(MAMBA2, "mamba2", "test")


def test_a_sequence_keeps_a_state_in_float32_and_a_few_tokens_however_long_it_is():
    state, convolved = 8 * 16 * 8, (8 * 16 + 2 * 2 * 8) * 4
    for length in (10, 1000):
        assert cache_bytes(MODEL, DType.BFLOAT16, length, slides=True) == 3 * (4 * state + 2 * convolved)


def test_a_sequence_is_padded_to_whole_chunks():
    needed = [_allocated(length, batch) for length, batch in ((512, 1), (257, 1), (256, 1))]
    assert needed[0] > needed[1] > 1.4 * needed[2]


def _allocated(length: int, batch: int) -> int:
    training = TrainingSpec(sequence_length=length, micro_batch_size=batch, gradient_checkpointing=False)
    return estimate_training(MODEL, training).allocated_bytes


def test_the_output_is_not_quantized_since_the_code_reads_its_matrix():
    assert {weight.module for weight in quantized_weights(MODEL, QuantizationSpec())} == {"in_proj"}


def test_all_linear_leaves_out_what_peft_refuses():
    lora, other = (AdapterSpec(peft_type=name, target_modules=("all-linear",)) for name in ("lora", "loha"))
    assert {weight.module for weight in adapted_weights(MODEL, lora)} == {"in_proj"}
    assert {weight.module for weight in adapted_weights(MODEL, other)} == {"in_proj", "out_proj"}
    with pytest.raises(SpecError, match="PEFT does not adapt out_proj of mamba2"):
        adapted_weights(MODEL, AdapterSpec(target_modules=("out_proj",)))


def test_a_plan_says_which_kernels_it_is_priced_without():
    everywhere = AdapterSpec(target_modules=("all-linear",))
    _, notes = settle_training(MODEL, TrainingSpec(adapter=everywhere), None)
    assert notes[0].startswith("Priced without the kernels of causal-conv1d, mamba-ssm")
    assert notes[1].startswith("all-linear without out_proj")
