"""A config.json is read as transformers reads it, and every mistake in it is one message."""

from __future__ import annotations

import math

import pytest

from peftbench.base.errors import NoFormula, SpecError
from peftbench.inputs.model.config_json import read_config
from peftbench.inputs.model.family import known_families
from peftbench.inputs.model.spec import ModelSpec

LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "vocab_size": 100,
}


def read(**changes: object) -> ModelSpec:
    return read_config({**LLAMA, **changes}, "tiny", "test")


def refusal(**changes: object) -> str:
    with pytest.raises(SpecError) as caught:
        read(**changes)
    assert caught.value.hint
    return caught.value.what


def test_reads_the_values_as_written() -> None:
    model = read(num_key_value_heads=2, tie_word_embeddings=True, attention_dropout=0.1)
    assert (model.name, model.source, model.model_type) == ("tiny", "test", "llama")
    assert (model.hidden_size, model.head_dim, model.query_size, model.key_value_size) == (64, 16, 64, 32)
    assert model.tie_word_embeddings
    assert model.attention_dropout == 0.1


@pytest.mark.parametrize("key", [key for key in LLAMA if key != "model_type"])
def test_core_keys_are_required(key: str) -> None:
    config = {k: v for k, v in LLAMA.items() if k != key}
    with pytest.raises(SpecError, match=f"no {key}"):
        read_config(config, "tiny", "test")
    with pytest.raises(SpecError, match=f"no {key} \\(it is null\\)"):
        read(**{key: None})


@pytest.mark.parametrize(
    "value", ["64", True, 64.0, math.nan, math.inf, -64, 0, 10**12, [64], {"a": 1}], ids=repr
)
@pytest.mark.parametrize("key", ["hidden_size", "num_hidden_layers", "vocab_size", "num_attention_heads"])
def test_a_core_size_of_the_wrong_kind_is_named_with_its_value(key: str, value: object) -> None:
    assert refusal(**{key: value}).startswith(
        f"tiny: {key} is {value!r}, but must be a whole number from 1 to"
    )


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("tie_word_embeddings", "yes", "true or false"),
        ("attention_bias", 1, "true or false"),
        ("attention_dropout", 1.5, "a number from 0 to 1"),
        ("attention_dropout", math.nan, "a number from 0 to 1"),
        ("attention_dropout", 10**400, "a number from 0 to 1"),
        ("hidden_act", "sliu", "an activation of transformers"),
        ("hidden_act", 3, "an activation of transformers"),
        ("num_key_value_heads", 3, "a divisor of num_attention_heads (4)"),
        ("num_attention_heads", 5, "a divisor of hidden_size (64)"),
    ],
)
def test_other_wrong_values(key: str, value: object, wanted: str) -> None:
    what = refusal(**{key: value})
    assert f"{key} is {repr(value)[:57]}" in what
    assert wanted in what


def test_a_long_value_is_cut_in_the_message() -> None:
    assert len(refusal(hidden_size="9" * 5000)) < 160
    assert "thousands of digits" in refusal(hidden_size=10**5000)


def test_layers_with_the_wrong_length_are_refused() -> None:
    assert "layer_types" in refusal(model_type="gemma2", layer_types=["full_attention"])
    assert "no_rope_layers" in refusal(model_type="smollm3", no_rope_layers=[1, 0])
    assert "mlp_only_layers" in refusal(model_type="qwen3_moe", mlp_only_layers=["first"])


def test_impossible_experts_are_refused() -> None:
    assert "num_experts_per_tok" in refusal(
        model_type="mixtral", num_key_value_heads=1, num_experts_per_tok=9
    )


def test_more_parameters_than_any_model_are_refused() -> None:
    sizes = {"hidden_size": 1 << 18, "intermediate_size": 1 << 20, "num_hidden_layers": 1000}
    assert "parameters, more than any model has" in refusal(**sizes, num_attention_heads=64)


def test_unknown_architecture_is_named_and_points_to_the_dry_run() -> None:
    with pytest.raises(SpecError) as caught:
        read(model_type="xlnet", architectures=["XLNetLMHeadModel"])
    assert "'xlnet' (XLNetLMHeadModel)" in caught.value.what
    assert "--dry-run" in caught.value.hint
    assert all(family in caught.value.hint for family in known_families())


def test_near_miss_of_an_architecture_is_suggested() -> None:
    with pytest.raises(SpecError) as caught:
        read(model_type="mistrall")
    assert caught.value.hint.startswith("Did you mean mistral?")


@pytest.mark.parametrize("model_type", [None, 3, ["llama"], {}])
def test_model_type_that_is_no_name(model_type: object) -> None:
    assert "not an architecture" in refusal(model_type=model_type)


def test_missing_model_type_shows_the_architectures_entry() -> None:
    assert "LlamaForCausalLM (model_type missing)" in refusal(
        model_type=None, architectures=["LlamaForCausalLM"]
    )


def test_the_dtype_belongs_to_the_recipe() -> None:
    extra = {
        "dtype": "bfloat16",
        "torch_dtype": "float16",
        "rope_scaling": None,
    }
    assert read(**extra) == read()


def test_gemma3_reads_its_language_model() -> None:
    text = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 12, "sliding_window": 8}
    model = read_config({"model_type": "gemma3", "text_config": text}, "g", "test")
    assert (model.model_type, model.vocab_size, model.num_attention_heads) == ("gemma3_text", 262_208, 8)
    assert model.sliding_layers == (0, 1, 2, 3, 4, 6, 7, 8, 9, 10)
    with pytest.raises(SpecError, match="text_config"):
        read_config({"model_type": "gemma3"}, "g", "test")
    with pytest.raises(NoFormula, match="'gemma3'"):
        read_config({"model_type": "gemma3", "text_config": {"model_type": "gemma3"}}, "g", "test")


def test_a_window_of_null_switches_sliding_off() -> None:
    mistral = {"model_type": "mistral", "num_key_value_heads": 4}
    assert read(**mistral).sliding_window == 4096
    assert read(**mistral).sliding_layers == (0, 1, 2, 3)
    assert read(**mistral, sliding_window=None).sliding_window is None
    assert read(**mistral, sliding_window=None).sliding_layers == ()


@pytest.mark.parametrize(
    ("model_type", "changes", "rotary_dim"),
    [
        ("phi", {}, 8),
        ("phi", {"partial_rotary_factor": 0.25}, 4),
        ("phi3", {"rope_parameters": {"partial_rotary_factor": 0.75}}, 12),
        ("gpt_neox", {}, 4),
        ("gpt_neox", {"rotary_pct": 1.0}, 16),
        ("falcon", {"alibi": True}, 0),
        ("llama", {}, 16),
    ],
)
def test_rotated_channels(model_type: str, changes: dict[str, object], rotary_dim: int) -> None:
    assert read(model_type=model_type, **changes).rotary_dim == rotary_dim


def test_falcon_combinations_that_cannot_run_are_refused() -> None:
    assert "parallel_attn" in refusal(
        model_type="falcon", new_decoder_architecture=True, parallel_attn=False, num_kv_heads=4
    )
    assert "num_ln_in_parallel_attn" in refusal(model_type="falcon", num_ln_in_parallel_attn=2)


def test_a_stored_quantization_is_named() -> None:
    assert read(quantization_config={"quant_method": "gptq", "bits": 4}).stored_quantization == "gptq"
    assert read(quantization_config={"bits": 4}).stored_quantization == "unknown"
    assert read().stored_quantization == ""
