"""The list of weights: exact counts for the catalogue, and the names and roles that others rely on."""

from __future__ import annotations

import pytest
from known_models import BY_FORMULA

from peftbench.catalog.models import find_model
from peftbench.inputs.model.weight import Role, Weight
from peftbench.inputs.model.weights import built_by, linear_modules, num_parameters, weights_of


def test_parameters_of_the_catalogue_are_exact() -> None:
    counts = {entry.id: num_parameters(entry.spec) for entry in BY_FORMULA}
    assert counts == {entry.id: entry.num_parameters for entry in BY_FORMULA}


def of(name: str, module: str, parameter: str = "weight") -> list[Weight]:
    return [w for w in weights_of(find_model(name)) if (w.module, w.parameter) == (module, parameter)]


def test_llama_has_seven_linear_modules_and_an_own_head() -> None:
    model = find_model("8b")
    assert linear_modules(model) == (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    )
    (key,) = of("8b", "k_proj")
    assert (key.path, key.shape, key.count, key.role) == ("self_attn.k_proj", (1024, 4096), 32, Role.LINEAR)
    assert (key.in_features, key.out_features, key.numel, key.total) == (4096, 1024, 1 << 22, 1 << 27)
    assert [w.role for w in of("8b", "lm_head")] == [Role.LM_HEAD]


def test_tied_heads_are_listed_once() -> None:
    assert of("1b", "lm_head") == []
    assert sum(w.role is Role.EMBEDDING for w in weights_of(find_model("1b"))) == 1


def test_conv1d_is_stored_transposed() -> None:
    (attention,) = of("gpt2", "c_attn")
    assert (attention.shape, attention.in_features, attention.out_features) == ((768, 2304), 768, 2304)
    assert [w.path for w in of("gpt2", "c_proj")] == ["attn.c_proj", "mlp.c_proj"]


def test_experts_are_fused_and_not_quantizable() -> None:
    (gate_up,) = of("8x7b", "experts", "gate_up_proj")
    assert (gate_up.shape, gate_up.role, gate_up.quantizable) == ((8, 28672, 4096), Role.EXPERTS, False)
    (router,) = of("8x7b", "gate")
    assert (router.role, router.quantizable) == (Role.ROUTER, False)
    assert linear_modules(find_model("8x7b")) == ("q_proj", "k_proj", "v_proj", "o_proj")


@pytest.mark.parametrize("name", ["mistralai/Mixtral-8x7B-v0.1", "allenai/OLMoE-1B-7B-0924", "Qwen/Qwen3-30B-A3B"])
def test_transformers_4_has_experts_apart(name: str) -> None:
    """The same parameters in other modules: source is the block of each family in transformers 4.48 and 4.57."""
    model = find_model(name)
    older = built_by(model, "4.48")
    inside = [w for w in weights_of(older) if w.of_expert]
    assert num_parameters(older) == num_parameters(model)
    assert [w.count for w in inside] == 3 * [model.num_experts * model.num_hidden_layers]
    assert all(w.quantizable for w in inside)
    assert "gate" in linear_modules(older) and {w.module for w in inside} < {*linear_modules(older)}
    assert built_by(model, "5") is model


def test_opt_350m_projects_its_narrow_embedding() -> None:
    (into,), (out,) = of("350m", "project_in"), of("350m", "project_out")
    assert (into.shape, out.shape, into.layers) == ((1024, 512), (512, 1024), None)
    assert of("350m", "embed_positions")[0].shape == (2050, 1024)


def test_only_linear_matrices_are_quantizable() -> None:
    for entry in BY_FORMULA:
        quantizable = {w.role for w in weights_of(entry.spec) if w.quantizable}
        assert quantizable == ({Role.LINEAR} if entry.spec.family.layout.plain_linear else set()), entry.id


def test_the_list_is_made_once_for_a_model() -> None:
    model = find_model("8b")
    assert weights_of(model) is weights_of(find_model("8b"))
