"""What to type to get another recipe: read back, it is that recipe."""

from __future__ import annotations

from dataclasses import replace

import pytest
from recipes_and_cards import A100, LLAMA_8B, LORA_16, QLORA, T4

from peftbench.catalog.models import find_model
from peftbench.decide.asked import Asked, arguments_of, asked_over
from peftbench.decide.from_options import training_recipes, within_positions
from peftbench.inputs.recipe import AdapterSpec, DType, ParallelismSpec, TrainingSpec

LORA_OPTIONS = {"r": 64, "adapter_dtype": "bfloat16"}


def asked(method: str, options: dict[str, object], model=LLAMA_8B) -> Asked:
    def build(method: str, options) -> TrainingSpec:
        return training_recipes((method,), within_positions(model, "training", (method,), options))[0]

    return Asked(method, options, build)


def test_a_change_of_method_keeps_what_was_typed_of_the_adapter() -> None:
    recipe = asked("lora", LORA_OPTIONS).recipe({"method": "qlora"}, LLAMA_8B, A100)
    assert recipe.adapter and (recipe.adapter.r, recipe.adapter.dtype) == (64, DType.BFLOAT16)
    assert recipe.method == "qlora"


def test_a_change_of_method_drops_what_the_other_does_not_have() -> None:
    question = asked("qlora", {"quant_type": "int8", "r": 4, "sequence_length": 64, "adapter_options": {"no": 1}})
    method, options = question.typed({"method": "lora"})
    assert (method, options) == ("lora", {"r": 4, "sequence_length": 64, "adapter_options": {}})
    assert question.typed({"method": "full"})[1] == {"sequence_length": 64}


@pytest.mark.parametrize(
    ("nodes", "words"),
    [(2, ("--gpus", "16", "--parallel", "fsdp")), (1, ("--gpus", "16", "--nodes", "1", "--parallel", "fsdp"))],
)
def test_nodes_are_typed_where_the_count_means_others(nodes: int, words: tuple[str, ...]) -> None:
    wanted = replace(LORA_16, parallelism=ParallelismSpec(gpus=16, nodes=nodes, strategy="fsdp"))
    typed = asked("lora", {}).leading_to(wanted, LLAMA_8B, A100)
    assert typed is not None and arguments_of(typed) == words


def test_what_the_first_options_lead_to_needs_no_others() -> None:
    wanted = replace(LORA_16, parallelism=ParallelismSpec(gpus=4, strategy="fsdp"))
    assert asked("lora", {}).leading_to(wanted, LLAMA_8B, A100, {"gpus": 4}) == {"gpus": 4}


def test_a_length_that_the_model_decides_is_not_typed() -> None:
    gpt2 = find_model("gpt2")
    assert asked("lora", {}, gpt2).leading_to(replace(LORA_16, sequence_length=1024), gpt2, A100) == {}
    assert asked("lora", {}, gpt2).leading_to(replace(LORA_16, sequence_length=99), gpt2, A100) == {
        "sequence_length": 99
    }


def test_a_recipe_leads_to_itself() -> None:
    for recipe in (LORA_16, QLORA, TrainingSpec(), replace(QLORA, parallelism=ParallelismSpec(gpus=2, strategy="ddp"))):
        assert asked_over(recipe).leading_to(recipe, LLAMA_8B, A100) == {}


def test_nothing_leads_to_what_has_no_words() -> None:
    """PEFT's own targets cannot be typed where the default is all linear layers, nor the end of DoRA."""
    adapter = AdapterSpec(r=16, target_modules=None)
    assert asked("lora", {}).leading_to(replace(LORA_16, adapter=adapter), LLAMA_8B, A100) is None
    assert asked("lora", {"use_dora": True}).leading_to(LORA_16, LLAMA_8B, A100) is None
    assert asked("lora", {}).leading_to(replace(LORA_16, sequence_length=200_000), LLAMA_8B, T4) is None
