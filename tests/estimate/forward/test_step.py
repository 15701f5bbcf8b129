"""One run of a step on the tape serves every recipe that needs the same, and no other."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peftbench.base.units import MIB
from peftbench.catalog.models import find_model
from peftbench.estimate.forward.kernels import kernels_of
from peftbench.estimate.forward.moments import step_moments
from peftbench.estimate.forward.step import Step, step_of
from peftbench.estimate.parts.card import traits_of
from peftbench.estimate.training import estimate_training
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.recipe import AdapterSpec, ParallelismSpec, TrainingSpec
from peftbench.inputs.recipe.training import ATTENTIONS, LOSSES, TRANSFORMERS
from peftbench.memory import Phase

MODELS = tuple(find_model(name) for name in ("gpt2", "gemma-3-1b-it", "llama-3.2-1b"))
LORA = AdapterSpec(target_modules=("all-linear",))
ADAPTERS = (None, LORA, replace(LORA, peft_type="adalora"), AdapterSpec(peft_type="prompt_tuning"))
PREFIX = AdapterSpec(peft_type="prefix_tuning")

recipes = st.builds(
    TrainingSpec,
    sequence_length=st.sampled_from((1, 100, 511, 512, 513)), micro_batch_size=st.integers(1, 3),
    gradient_accumulation_steps=st.integers(1, 3), zero_grad_keeps=st.booleans(), padded=st.booleans(),
    gradient_checkpointing=st.booleans(), attention=st.sampled_from(ATTENTIONS), loss=st.sampled_from(LOSSES),
    transformers=st.sampled_from(TRANSFORMERS), optimizer=st.sampled_from(("adamw_torch", "sgd")),
    adapter=st.sampled_from(ADAPTERS),
)  # fmt: skip


def exact(model: ModelSpec, training: TrainingSpec) -> None:
    """The moments of the recipe as it is, and of the one that stands for it."""
    kernels = kernels_of(model, training, traits_of(None))
    as_it_is = replace(training, parallelism=TrainingSpec.parallelism)
    assert step_moments(step_of(model, training, kernels)) == step_moments(Step(model, as_it_is, kernels))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(MODELS), recipes)
def test_what_stands_for_a_recipe_needs_the_same(model: ModelSpec, training: TrainingSpec) -> None:
    exact(model, training)


@pytest.mark.parametrize("batch", [1, 3])
def test_a_prefix_is_as_long_as_its_batch(batch: int) -> None:
    exact(MODELS[2], TrainingSpec(micro_batch_size=batch, gradient_checkpointing=False, adapter=PREFIX))


def test_sizes_optimizers_and_gpus_share_one_run() -> None:
    model, plain = MODELS[2], TrainingSpec(adapter=LORA)
    others = (
        replace(plain, sequence_length=77), replace(plain, micro_batch_size=9), replace(plain, optimizer="sgd"),
        replace(plain, parallelism=ParallelismSpec(gpus=2, strategy="zero1")),
    )  # fmt: skip
    steps = {step_of(model, training, kernels_of(model, training, traits_of(None))) for training in (plain, *others)}
    assert len(steps) == 1
    accumulating = [replace(plain, gradient_accumulation_steps=n) for n in (2, 8)]
    steps |= {step_of(model, training, kernels_of(model, training, traits_of(None))) for training in accumulating}
    assert len(steps) == 2


def test_outputs_of_a_function_die_with_it() -> None:
    """Alive in backward, as a plain loop's, but neither in the optimizer's step nor in the next forward pass."""
    adapter = AdapterSpec(r=8, target_modules=("q_proj", "v_proj"))
    trainer, plain, function = (
        estimate_training(find_model("1b"), TrainingSpec(loop=loop, adapter=adapter))
        for loop in ("trainer", "plain", "function")
    )
    assert function.allocated_in(Phase.BACKWARD) == plain.allocated_in(Phase.BACKWARD)
    assert function.allocated_in(Phase.BACKWARD) > trainer.allocated_in(Phase.BACKWARD)
    assert abs(function.allocated_in(Phase.STEP) - trainer.allocated_in(Phase.STEP)) <= MIB  # a block's remainder
    assert function.allocated_in(Phase.FORWARD) < plain.allocated_in(Phase.FORWARD)
