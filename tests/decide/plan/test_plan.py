"""Plans: what was priced, on which card, with which notes."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from recipes_and_cards import A100, CARDS, FULL, LLAMA_8B, LORA_16, QLORA, RECIPES, SMALL, T4

from peftbench.base.errors import SpecError
from peftbench.catalog.models import NamedConfig, find_config, find_model
from peftbench.decide.card import settle_training
from peftbench.decide.from_options import training_recipes
from peftbench.decide.plan.plan import Plan, make_inference_plan, make_plan
from peftbench.decide.recipe import recipe_options
from peftbench.estimate.training import estimate_training
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.inputs.model.config_json import read_config
from peftbench.inputs.recipe import AdapterSpec, DType, InferenceSpec, QuantizationSpec, TrainingSpec
from peftbench.memory import Part


def test_a_plan_without_a_card_has_no_verdict() -> None:
    plan = make_plan(LLAMA_8B, QLORA)
    assert (plan.gpu, plan.verdict, plan.changes) == (None, None, ())
    assert plan.method == "qlora"
    assert plan.trainable_parameters == 41_943_040


def test_bfloat16_is_replaced_on_a_card_without_it_and_the_plan_says_so() -> None:
    plan = make_plan(LLAMA_8B, QLORA, T4)
    assert isinstance(plan.recipe, TrainingSpec)
    assert plan.recipe.dtype is DType.FLOAT16
    assert plan.recipe.quantization is not None
    assert plan.recipe.quantization.compute_dtype is DType.FLOAT16
    assert plan.options["dtype"] == "float16"
    assert any("no bfloat16" in note for note in plan.notes)


def test_float16_that_a_grad_scaler_refuses_is_said() -> None:
    assert any("GradScaler" in note for note in make_plan(LLAMA_8B, FULL, T4).notes)
    assert not any("GradScaler" in note for note in make_plan(LLAMA_8B, LORA_16, T4).notes)


def test_float32_stays_on_any_card() -> None:
    training = replace(FULL, dtype=DType.FLOAT32)
    assert make_plan(SMALL, training, T4).recipe == training


def test_flash_attention_needs_ampere() -> None:
    training = replace(QLORA, attention="flash_attention_2")
    assert make_plan(LLAMA_8B, training, A100).recipe == training
    with pytest.raises(SpecError, match="needs compute capability") as error:
        make_plan(LLAMA_8B, training, T4)
    assert "--attention sdpa" in error.value.hint


def test_a_sequence_beyond_the_positions_names_both() -> None:
    gpt2 = find_model("gpt2")
    with pytest.raises(SpecError, match="1025 tokens are beyond the 1024 positions"):
        make_plan(gpt2, replace(FULL, sequence_length=1025))
    with pytest.raises(SpecError, match="1200 tokens"):
        make_inference_plan(gpt2, InferenceSpec(prompt_tokens=1000, new_tokens=200))


def test_rotary_positions_have_no_end() -> None:
    """transformers warns at most, and people scale them: the price is that of so many tokens."""
    beyond = "beyond the 131072 positions of meta-llama/Llama-3.1-8B"
    plan = make_plan(LLAMA_8B, replace(QLORA, sequence_length=262_144), A100)
    assert any(beyond in note and "RoPE" in note for note in plan.notes)
    within = make_plan(LLAMA_8B, replace(QLORA, sequence_length=131_072), A100)
    assert plan.profile.bytes_of(Part.CHECKPOINTS) == 2 * within.profile.bytes_of(Part.CHECKPOINTS)
    assert not any("positions" in note for note in within.notes)
    request = make_inference_plan(LLAMA_8B, InferenceSpec(prompt_tokens=131_072, new_tokens=1))
    assert any(beyond in note for note in request.notes)


@pytest.mark.parametrize("name", ["gpt2", "facebook/opt-350m"])
def test_learned_positions_end_for_a_dry_run_too(name: str) -> None:
    """On fake tensors no index is out of range, so it has to be known before."""
    model, training = find_config(name).other, TrainingSpec(sequence_length=4096)
    with pytest.raises(SpecError, match="beyond the"):
        settle_training(model, training, None)
    assert settle_training(find_config("8b").other, replace(training, sequence_length=200_000), None)[1]


@pytest.mark.parametrize(("more", "learned"), [({}, True), ({"rope_theta": 1e4}, False), ({"rotary_pct": 0.5}, False)])
def test_an_unknown_architecture_rotates_if_it_says_how(more: dict[str, object], learned: bool) -> None:
    config = {"model_type": "new", "max_position_embeddings": 77, **more}
    assert NamedConfig(config, "new", "test").other.learned_positions is learned


def test_the_cache_is_off_under_checkpointing_and_the_plan_says_so() -> None:
    plan = make_plan(SMALL, replace(LORA_16, use_cache=True))
    assert plan.options["use_cache"] is False
    assert any("use-cache" in note for note in plan.notes)


def test_experts_that_stay_16_bit_are_said() -> None:
    notes = make_plan(find_model("mistralai/Mixtral-8x7B-v0.1"), QLORA).notes
    assert any("45.10 B of 46.70 B parameters stay bfloat16" in note for note in notes)


def test_falcon_is_not_quantized_and_the_plan_says_so() -> None:
    sizes = {"hidden_size": 4544, "num_hidden_layers": 32, "num_attention_heads": 71, "vocab_size": 65_024}
    falcon = read_config({"model_type": "falcon", **sizes}, "falcon", "test")
    plan = make_plan(falcon, replace(QLORA, adapter=AdapterSpec(r=16)))
    assert any("quantizes no linear layer of falcon" in note for note in plan.notes)


def test_the_size_on_disk_is_the_model_or_the_adapter() -> None:
    assert make_plan(LLAMA_8B, FULL).adapter_file_bytes == pytest.approx(16.06e9, rel=1e-3)
    assert make_plan(LLAMA_8B, LORA_16).adapter_file_bytes == pytest.approx(41_943_040 * 4, rel=1e-2)


@settings(max_examples=50, deadline=None)
@given(training=RECIPES, gpu=CARDS)
def test_the_profile_is_that_of_the_recipe_shown(training: TrainingSpec, gpu: GpuSpec) -> None:
    plan = make_plan(SMALL, training, gpu, with_changes=False)
    assert isinstance(plan.recipe, TrainingSpec)
    assert plan.profile == estimate_training(SMALL, plan.recipe, gpu)


@settings(max_examples=50, deadline=None)
@given(training=RECIPES, gpu=CARDS)
def test_a_shown_recipe_can_be_typed_back_to_the_same_memory(training: TrainingSpec, gpu: GpuSpec) -> None:
    plan = make_plan(SMALL, training, gpu, with_changes=False)
    typed = typed_back(plan)
    assert recipe_options(typed) == plan.options
    assert estimate_training(SMALL, typed, gpu) == plan.profile


def typed_back(plan: Plan) -> TrainingSpec:
    """The recipe that its shown options make, on the command line or from JSON."""
    shown = {k: v for k, v in plan.options.items() if v not in (None, {}) and k not in ("task", "peft_type")}
    (typed,) = training_recipes((plan.method,), shown)
    return typed


@pytest.mark.parametrize(
    "peft_type", ["ia3", "adalora", "vera", "prefix_tuning", "prompt_tuning", "oft", "lokr"]
)
def test_defaults_of_a_type_are_shown_and_typed_back_to_the_same_memory(peft_type: str) -> None:
    plan = make_plan(SMALL, TrainingSpec(adapter=AdapterSpec(peft_type=peft_type)))
    assert estimate_training(SMALL, typed_back(plan)) == plan.profile


NESTED = {"adapter", "quantization", "parallelism"}
RENAMED = {"zero_grad_keeps": "zero_grad"}
RENAMED_IN_ADAPTER = {
    "alpha": "lora_alpha", "dtype": "adapter_dtype", "dropout": "lora_dropout", "options": "adapter_options",
}  # fmt: skip


def test_every_field_of_a_recipe_is_an_option() -> None:
    options = recipe_options(QLORA)
    of_training = {RENAMED.get(f.name, f.name) for f in fields(TrainingSpec)} - NESTED
    of_adapter = {RENAMED_IN_ADAPTER.get(f.name, f.name) for f in fields(AdapterSpec)}
    of_quantization = {f.name for f in fields(QuantizationSpec)}
    assert of_training | of_adapter | of_quantization <= set(options)


def test_a_quantized_checkpoint_is_said_to_be_priced_as_if_it_were_not() -> None:
    config = {
        "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 96, "vocab_size": 100, "quantization_config": {"quant_method": "gptq"},
    }  # fmt: skip
    plan = make_plan(read_config(config, "tiny", "test"), TrainingSpec(sequence_length=64))
    assert any("stored as gptq" in note for note in plan.notes)


@pytest.mark.parametrize("name", ["20b", "120b"])
def test_the_checkpoints_of_gpt_oss_are_known_to_be_mxfp4(name: str) -> None:
    """As their config.json says: what is priced are the bfloat16 weights that transformers makes of them elsewhere."""
    plan = make_inference_plan(find_model(name), InferenceSpec())
    assert any("stored as mxfp4: priced as if its weights were bfloat16" in note for note in plan.notes)


@pytest.mark.parametrize(("reentrant", "said"), [(False, True), (True, False)])
def test_a_note_says_what_checkpointing_does_not_see(reentrant: bool, said: bool) -> None:
    training = TrainingSpec(
        adapter=AdapterSpec(), quantization=QuantizationSpec(quant_type="int8"), use_reentrant=reentrant
    )
    notes = make_plan(LLAMA_8B, training).notes
    assert any("--use-reentrant" in note for note in notes) is said
