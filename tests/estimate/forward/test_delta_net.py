"""Gated delta nets: what a sequence keeps, and what is shown of the kernels that are left out."""

from peftbench.decide.card import settle_training
from peftbench.estimate.forward.kernels import Kernels
from peftbench.estimate.forward.moments import step_moments
from peftbench.estimate.forward.step import step_of
from peftbench.estimate.parts.mixing import cache_bytes
from peftbench.inputs.model.config_json import read_config
from peftbench.inputs.recipe import DType, TrainingSpec

QWEN3_5 = {
    "model_type": "qwen3_5_text", "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 96, "vocab_size": 80, "linear_num_key_heads": 2,
    "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 16,
}  # fmt: skip
STATE = 4 * 8 * 16
CONVOLVED = (2 * 2 * 8 + 4 * 16) * 4


def kept(sequence_length: int) -> int:
    """Bytes that a step keeps at its peak, of one sequence."""
    training = TrainingSpec(sequence_length=sequence_length, gradient_checkpointing=False, autocast=False)
    model = read_config(QWEN3_5, "test", "test")
    moments = step_moments(step_of(model, training, Kernels())).backward
    return max(moment.bytes_at(training.tokens, sequence_length) for moment in moments)


def test_three_layers_in_four_keep_a_state_in_float32_and_one_keys_and_values():
    model = read_config(QWEN3_5, "test", "test")
    each = STATE * 4 + CONVOLVED * 2
    assert cache_bytes(model, DType.BFLOAT16, 100, slides=True) == 3 * each + 100 * 2 * 2 * 16 * 2


def test_sequences_are_padded_to_whole_chunks():
    """What is kept of 65 tokens is nearer to that of 128 than to that of 64."""
    assert kept(128) - kept(65) < kept(65) - kept(64)


def test_the_price_is_shown_to_be_that_of_torch_alone():
    _, notes = settle_training(read_config(QWEN3_5, "test", "test"), TrainingSpec(), None)
    assert any("causal-conv1d, flash-linear-attention" in note for note in notes)
