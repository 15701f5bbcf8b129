"""Adapter sizes: published counts, what is refused, and rules that must hold."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftbench.base.errors import SpecError
from peftbench.estimate.parts.tensors import total_bytes
from peftbench.estimate.peft_types.table import METHODS
from peftbench.estimate.peft_types.tensors import (
    adapter_file_bytes,
    adapter_tensors,
    frozen_bytes,
    target_modules,
    trainable_parameters,
)
from peftbench.inputs.model.config_json import read_config
from peftbench.inputs.recipe import AdapterSpec, DType

LLAMA_3B = read_config(
    {
        "model_type": "llama", "vocab_size": 128256, "hidden_size": 3072, "intermediate_size": 8192,
        "num_hidden_layers": 28, "num_attention_heads": 24, "num_key_value_heads": 8,
        "tie_word_embeddings": True,
    },
    "Llama-3.2-3B",
    "its config.json",
)  # fmt: skip
LLAMA_8B = replace(
    LLAMA_3B, name="Llama-3.1-8B", hidden_size=4096, embedding_size=4096, intermediate_size=14336,
    num_hidden_layers=32, num_attention_heads=32, tie_word_embeddings=False,
)  # fmt: skip
MIXTRAL = replace(
    LLAMA_8B, name="Mixtral-8x7B", model_type="mixtral", vocab_size=32000, num_experts=8,
    num_experts_per_tok=2, moe_intermediate_size=14336,
)  # fmt: skip
GPT2 = read_config(
    {"model_type": "gpt2", "vocab_size": 50257, "n_embd": 768, "n_layer": 12, "n_head": 12}, "GPT-2", ""
)
ALL = ("all-linear",)


def adapter(peft_type="lora", r=None, targets=None, **options):
    return AdapterSpec(
        peft_type=peft_type, r=r, target_modules=targets, options=tuple(sorted(options.items()))
    )


PUBLISHED = [
    (adapter(r=32), 9_175_040),
    (adapter(r=64), 18_350_080),
    (adapter(r=10, targets=("gate_proj", "up_proj", "down_proj")), 9_461_760),
    (adapter("vera"), 129_024),
    (replace(adapter(r=32), use_dora=True), 9_289_728),
    (adapter("ia3"), 286_720),
    (adapter("oft", r=32), 8_171_520),
    (adapter("p_tuning", num_virtual_tokens=20), 28_382_208),
    (adapter("prompt_tuning", num_virtual_tokens=200), 614_400),
    (adapter("prefix_tuning", num_virtual_tokens=200), 11_468_800),
]


@pytest.mark.parametrize(("spec", "count"), PUBLISHED, ids=[f"{s.peft_type}-{n}" for s, n in PUBLISHED])
def test_counts_of_pefts_method_comparison(spec, count):
    """Llama-3.2-3B in huggingface/peft `method_comparison/MetaMathQA`, where the library counted them."""
    assert trainable_parameters(LLAMA_3B, spec) == count


def test_lora_of_one_square_matrix():
    """r=16 on 4096 x 4096: 131,072 of 16.8 million parameters."""
    tensors = adapter_tensors(LLAMA_8B, adapter(r=16, targets=("q_proj",)))
    assert [(t.shape, t.count) for t in tensors] == [((16, 4096), 32), ((4096, 16), 32)]
    assert trainable_parameters(LLAMA_8B, adapter(r=16, targets=("q_proj",))) == 32 * 131_072


def test_lora_of_8b_on_all_linear():
    assert trainable_parameters(LLAMA_8B, adapter(r=16, targets=ALL)) == 41_943_040
    assert target_modules(LLAMA_8B, adapter(targets=ALL)) == (
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"
    )  # fmt: skip


def test_file_is_the_adapter_in_its_dtype():
    spec = adapter(r=16, targets=ALL)
    assert adapter_file_bytes(LLAMA_8B, spec) == pytest.approx(4 * 41_943_040, rel=0.001)
    assert adapter_file_bytes(LLAMA_8B, replace(spec, dtype=DType.BFLOAT16)) == pytest.approx(
        2 * 41_943_040, rel=0.001
    )


def test_p_tuning_saves_the_prompt_only():
    spec = adapter("p_tuning", num_virtual_tokens=20)
    assert trainable_parameters(LLAMA_3B, spec) > 28_000_000
    assert adapter_file_bytes(LLAMA_3B, spec) == pytest.approx(4 * 20 * 3072, abs=500)


def test_boft_keeps_a_dense_permutation_for_each_matrix():
    """A 4096 x 4096 identity in float32 for each of 64 matrices: 4 GiB beside 2 MB of parameters."""
    assert frozen_bytes(LLAMA_8B, adapter("boft")) == 64 * 4096 * 4096 * 4


def test_lora_reaches_mixtrals_experts_with_all_linear():
    """PEFT 0.21 adapts the fused experts, each with its own rank; other types leave them alone."""
    experts = 8 * (2 * 16 * (4096 + 2 * 14336) + 16 * (14336 + 4096)) * 32
    attention = trainable_parameters(MIXTRAL, adapter(r=16, targets=("q_proj", "k_proj", "v_proj", "o_proj")))
    router = 32 * 16 * (4096 + 8)
    assert trainable_parameters(MIXTRAL, adapter(r=16, targets=ALL)) == attention + router + experts


REFUSED = [
    (adapter("lorra"), "Did you mean lora"),
    (adapter("xlora"), "not modelled"),
    (adapter(targets=("q_prj",)), "Did you mean q_proj"),
    (adapter(targets=("query_key_value",)), "It has embed_tokens, q_proj, k_proj"),
    (adapter(targets=("norm",)), "cannot be put on 'norm'"),
    (adapter(r=2048), "r=2048 is more than the rank of self_attn.v_proj, a 1024 x 3072 matrix"),
    (adapter("ia3", r=4), "ia3 has no rank"),
    (adapter("vera", use_dora=True), "no option 'use_dora'"),
    (replace(adapter("loha"), use_dora=True), "no option 'use_dora'"),
    (adapter("prompt_tuning", num_virtual_token=3), "Did you mean num_virtual_tokens"),
    (adapter("prompt_tuning", targets=("q_proj",)), "no target modules"),
    (adapter("ln_tuning", targets=ALL), "not put on linear modules"),
    (adapter("c3a", block_size=100), "block_size=100 does not divide"),
    (adapter("road", variant="road_3"), "Choose one of road_1, road_2, road_4"),
    (adapter("supertuning", sparsity=1.5), "less than 1"),
    (adapter("adaption_prompt", adapter_layers=99), "has 28 layers"),
    (adapter("trainable_tokens"), "ids"),
    (adapter("trainable_tokens", token_indices="1,01"), "a token twice"),
    (adapter("trainable_tokens", token_indices="128256"), "names token 128,256, but"),
    (adapter("gralora", r=3), "does not divide r=3"),
    (adapter("lily", num_B=1), "num_B must be at least 2"),
    (adapter("supertuning", sparsity=1), "less than 1"),
    (adapter("road", group_size=3), "even group_size"),
    (adapter("cartridge", num_virtual_tokens=2, num_frozen_tokens=2), "no virtual token to train"),
]


@pytest.mark.parametrize(("spec", "message"), REFUSED, ids=[m for _, m in REFUSED])
def test_bad_input_says_what_to_type_next(spec, message):
    with pytest.raises(SpecError) as caught:
        adapter_tensors(LLAMA_3B, spec)
    assert message in str(caught.value)


@pytest.mark.parametrize(("number", "message"), [(0, "at least 1"), ("many", "a whole number")])
def test_virtual_tokens_are_refused_by_the_spec_itself(number, message):
    with pytest.raises(SpecError, match=message):
        adapter("prompt_tuning", num_virtual_tokens=number)


@pytest.mark.parametrize("more", [{"dropout": 0.05}, {"use_dora": True}, {"options": (("lora_bias", True),)}])
def test_fused_experts_take_plain_lora_only(more):
    """PEFT's ParamWrapper raises for each."""
    with pytest.raises(SpecError, match="plain LoRA only"):
        adapter_tensors(MIXTRAL, replace(adapter(targets=ALL), **more))
    assert adapter_tensors(MIXTRAL, replace(adapter(targets=("q_proj",)), **more))


def test_no_default_targets():
    with pytest.raises(SpecError, match="no default target modules for phi3"):
        adapter_tensors(replace(LLAMA_3B, model_type="phi3"), adapter())
    with pytest.raises(SpecError, match="--target-modules input_layernorm,post_attention_layernorm\\."):
        adapter_tensors(MIXTRAL, adapter("ln_tuning"))


def test_conv1d_is_refused_where_peft_refuses_it():
    assert trainable_parameters(GPT2, adapter(r=8)) == 294_912
    with pytest.raises(SpecError, match="does not support the layers of gpt2"):
        adapter_tensors(GPT2, adapter("loha"))


def test_half_of_the_fused_experts():
    with pytest.raises(SpecError, match="Name both: --target-modules w1,w3"):
        adapter_tensors(MIXTRAL, adapter(targets=("w1",)))


@pytest.mark.parametrize("peft_type", METHODS)
def test_every_type_can_be_priced_on_8b(peft_type):
    options = {"token_indices": "1,2"} if peft_type == "trainable_tokens" else {}
    spec = adapter(peft_type, **options)
    assert 0 < total_bytes(adapter_tensors(LLAMA_8B, spec)) < 40e9
    assert frozen_bytes(LLAMA_8B, spec) >= 0
    assert adapter_file_bytes(LLAMA_8B, spec) > 0


RANKED = [
    name for name, method in METHODS.items() if method.rank == "r" and name not in ("oft", "lokr", "randlora")
]


@given(st.sampled_from(RANKED), st.integers(1, 300), st.integers(0, 200))
def test_a_larger_rank_never_needs_less(peft_type, r, more):
    r, more = (2 * r, 2 * more) if peft_type == "gralora" else (r, more)  # its parts divide the rank
    small, large = (adapter_tensors(LLAMA_8B, adapter(peft_type, r=rank)) for rank in (r, r + more))
    assert total_bytes(small) <= total_bytes(large)
