"""What a torch.autograd.Function keeps on its ctx: checkpoints do not see it, and backward does not free it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from peftbench.catalog.models import find_model
from peftbench.estimate.training import estimate_training
from peftbench.inputs.recipe import AdapterSpec, QuantizationSpec, TrainingSpec
from peftbench.memory import Part, Phase

LLAMA = find_model("meta-llama/Llama-3.2-1B")
INT8 = QuantizationSpec(quant_type="int8", upcast_unquantized=False)
RECIPE = TrainingSpec(
    sequence_length=512, micro_batch_size=2, autocast=False, adapter=AdapterSpec(target_modules=("q_proj",)),
    quantization=INT8,
)  # fmt: skip
INPUTS = 2 * (3 * LLAMA.hidden_size + LLAMA.intermediate_size)
"""Bytes a token: q, k and v share one input, gate and up another; o_proj and down_proj have their own."""


def forward_bytes(training: TrainingSpec) -> int:
    found = estimate_training(LLAMA, training).alive_in(Phase.FORWARD)
    return sum(c.bytes for c in found if c.part is Part.ACTIVATIONS)


def test_checkpoints_do_not_drop_the_inputs_of_8_bit_layers() -> None:
    more = forward_bytes(RECIPE) - forward_bytes(replace(RECIPE, use_reentrant=True))
    assert more == LLAMA.num_hidden_layers * INPUTS * 1024


@pytest.mark.parametrize(("transformers", "kept"), [("5", 0), ("4.39", INPUTS)])
def test_4_bit_layers_keep_theirs_in_old_versions_only(transformers: str, kept: int) -> None:
    """The compute type is that of the inputs, so that casting copies nothing."""
    training = replace(RECIPE, quantization=replace(INT8, quant_type="nf4"), transformers=transformers)
    more = forward_bytes(training) - forward_bytes(replace(training, use_reentrant=True))
    assert more == LLAMA.num_hidden_layers * kept * 1024
