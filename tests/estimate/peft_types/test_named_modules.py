"""Targets that are named in full, as PEFT writes them: one module of one layer."""

from __future__ import annotations

import pytest

from peftbench.base.errors import NoFormula, SpecError
from peftbench.catalog.models import find_model
from peftbench.decide.adapter_config import adapter_of
from peftbench.decide.plan.plan import make_plan
from peftbench.estimate.peft_types.tensors import adapted_by_layer, adapted_weights, trainable_parameters
from peftbench.estimate.training import estimate_training
from peftbench.inputs.recipe import AdapterSpec, TrainingSpec
from peftbench.report.plan.header import _targets

LLAMA_8B = find_model("8b")
QUERY, DOWN = "self_attn.q_proj", "mlp.down_proj"


def lora(*names: str) -> AdapterSpec:
    return AdapterSpec(r=16, target_modules=names)


def every(path: str) -> tuple[str, ...]:
    return tuple(f"model.layers.{layer}.{path}" for layer in range(LLAMA_8B.num_hidden_layers))


@pytest.mark.parametrize("name", [f"model.layers.3.{QUERY}", f"layers.3.{QUERY}", f"3.{QUERY}"])
def test_a_name_in_full_is_one_layer(name: str) -> None:
    (weight,) = adapted_weights(LLAMA_8B, lora(name))
    assert (weight.path, weight.layers) == (QUERY, (3,))
    assert trainable_parameters(LLAMA_8B, lora(name)) == 16 * (4096 + 4096)


def test_all_layers_by_name_are_the_module_by_its_own() -> None:
    one, listed = (TrainingSpec(adapter=lora(*names)) for names in (("q_proj",), every(QUERY)))
    assert estimate_training(LLAMA_8B, one).components == estimate_training(LLAMA_8B, listed).components


def test_names_add_up_in_any_mixture() -> None:
    adapter = lora(f"model.layers.0.{QUERY}", f"31.{QUERY}", "down_proj", f"model.layers.5.{DOWN}")
    layers = adapted_by_layer(LLAMA_8B, adapter)
    assert layers[0] == layers[31] == {QUERY, DOWN} and all(paths == {DOWN} for paths in layers[1:31])


def test_layers_below_the_first_adapter_keep_nothing() -> None:
    """Without checkpoints autograd saves from the first trained tensor on."""
    low, high = (TrainingSpec(adapter=lora(f"{i}.{QUERY}"), gradient_checkpointing=False) for i in (0, 31))
    sizes = [estimate_training(LLAMA_8B, training).allocated_bytes for training in (low, high)]
    assert sizes[1] < 0.7 * sizes[0]


@pytest.mark.parametrize("name", ["model.layers.32.self_attn.q_proj", "model.layers.0.q_proj", "layer.0.mlp.up_proj"])
def test_a_module_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(SpecError, match="has no module"):
        trainable_parameters(LLAMA_8B, lora("v_proj", name))


@pytest.mark.parametrize("name", ["model.embed_tokens", "embed_tokens"])
def test_embeddings_have_a_name_in_full_too(name: str) -> None:
    assert trainable_parameters(LLAMA_8B, lora(name)) == 16 * (128_256 + 4096)


def test_a_file_of_pefts_is_priced() -> None:
    names = [f"model.layers.{layer}.{QUERY}" for layer in (4, 5)]
    adapter = adapter_of({"peft_type": "LORA", "r": 16, "target_modules": names})
    plan = make_plan(LLAMA_8B, TrainingSpec(adapter=adapter))
    assert plan.trainable_parameters == 2 * 16 * (4096 + 4096)


def test_what_ia3_scales_before_a_layer_has_no_formula() -> None:
    name = f"0.{DOWN}"
    adapter = AdapterSpec(peft_type="ia3", target_modules=(name,), options=(("feedforward_modules", name),))
    with pytest.raises(NoFormula, match="by layer"):
        trainable_parameters(LLAMA_8B, adapter)


def test_a_long_list_is_counted_on_the_screen() -> None:
    assert _targets(lora(*every(QUERY))) == "32 named modules"
    assert _targets(lora("q_proj", "v_proj")) == "q_proj,v_proj"
