"""Prompts lengthen what goes through the layers; prefixes are keys and values beside it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from peftbench.base.errors import SpecError
from peftbench.catalog.models import find_model
from peftbench.estimate.forward.kernels import attention_kernel
from peftbench.estimate.parts.card import traits_of
from peftbench.estimate.peft_forward.virtual_tokens import past_tokens, stream_length, stream_tokens
from peftbench.estimate.training import estimate_training
from peftbench.inputs.recipe import AdapterSpec, TrainingSpec
from peftbench.memory import Part, Phase

LLAMA = find_model("meta-llama/Llama-3.2-1B")
RECIPE = TrainingSpec(sequence_length=512, micro_batch_size=2, gradient_checkpointing=False)


def with_virtual(peft_type: str, tokens: int) -> TrainingSpec:
    adapter = AdapterSpec(peft_type=peft_type, options=(("num_virtual_tokens", tokens),))
    return replace(RECIPE, adapter=adapter)


def backward_bytes(training: TrainingSpec) -> int:
    found = estimate_training(LLAMA, training).alive_in(Phase.BACKWARD)
    return sum(c.bytes for c in found if c.part in (Part.ACTIVATIONS, Part.LOGITS))


@pytest.mark.parametrize("peft_type", ["prompt_tuning", "p_tuning", "multitask_prompt_tuning", "cpt"])
def test_prompts_go_through_the_layers(peft_type: str) -> None:
    training = with_virtual(peft_type, 20)
    assert (stream_length(training), stream_tokens(training), past_tokens(training)) == (532, 1064, 0)


def test_a_prompt_costs_what_as_many_tokens_cost() -> None:
    longer = replace(with_virtual("prompt_tuning", 8), sequence_length=512 + 24)
    assert backward_bytes(with_virtual("prompt_tuning", 32)) == backward_bytes(longer)


@pytest.mark.parametrize("peft_type", ["prefix_tuning", "cartridge"])
def test_prefixes_are_keys_with_a_mask(peft_type: str) -> None:
    training = with_virtual(peft_type, 20)
    assert (stream_tokens(training), past_tokens(training)) == (1024, 40)
    assert attention_kernel(LLAMA, training, traits_of(None)) == "efficient"
    assert backward_bytes(with_virtual(peft_type, 200)) > backward_bytes(training)


def test_prefixes_do_not_work_with_checkpointing() -> None:
    with pytest.raises(SpecError, match="checkpointing"):
        estimate_training(LLAMA, replace(with_virtual("prefix_tuning", 20), gradient_checkpointing=True))
