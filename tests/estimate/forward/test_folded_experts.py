"""LoRA on fused experts and their router: the gradients of a step are as many as what is trained."""

from __future__ import annotations

import pytest

from peftbench.estimate.forward.kernels import Kernels
from peftbench.estimate.forward.moments import _layers
from peftbench.estimate.forward.step import step_of
from peftbench.estimate.parts.tensors import total_bytes
from peftbench.estimate.training import trained_tensors
from peftbench.inputs.model.config_json import read_config
from peftbench.inputs.recipe import AdapterSpec, TrainingSpec
from peftbench.memory import Part

SIZES = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 80,
}  # fmt: skip
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "intermediate_size": 96}


@pytest.mark.parametrize("inner", [16, 32, 48])
def test_every_factor_has_a_gradient_however_narrow_an_expert_is(inner: int) -> None:
    """Gate and up have twice the rank also where both together are narrower than the stream."""
    config = {"model_type": "qwen3_moe", **SIZES, **EXPERTS, "moe_intermediate_size": inner}
    model = read_config(config, "small", "test")
    adapter = AdapterSpec(peft_type="lora", r=4, target_modules=("all-linear",))
    training = TrainingSpec(sequence_length=8, adapter=adapter)
    kinds, segments, _ = _layers(step_of(model, training, Kernels("flash")))
    left = sum(segments[kind].left[Part.GRADIENTS][2] for kind in kinds)
    assert left == total_bytes(trained_tensors(model, training))
