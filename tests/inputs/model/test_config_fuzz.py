"""Whatever stands in a config.json, reading it gives a model or a PeftbenchError, never another exception."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from known_models import SMALLEST

from peftbench.base.errors import PeftbenchError
from peftbench.inputs.model.config_json import read_config
from peftbench.inputs.model.family import known_families
from peftbench.inputs.model.weights import num_parameters, weights_of

_SIZES = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 80,
    "ffn_dim": 96,
}
_FALCON = {"model_type": "falcon", **_SIZES}
_GEMMA3 = {"model_type": "gemma3", "text_config": {**_SIZES, "intermediate_size": 96}}
BASES = [*(dict(model.config) for model in SMALLEST.values()), _FALCON, _GEMMA3]

_OPTIONAL = [
    "head_dim", "num_key_value_heads", "num_kv_heads", "max_position_embeddings", "tie_word_embeddings",
    "hidden_act", "attention_bias", "mlp_bias", "attention_dropout", "resid_pdrop", "embd_pdrop",
    "hidden_dropout", "dropout", "sliding_window", "layer_types", "use_sliding_window",
    "max_window_layers", "sliding_window_pattern", "rope_parameters", "rope_scaling", "rotary_pct",
    "partial_rotary_factor", "no_rope_layers", "no_rope_layer_interval", "mlp_only_layers",
    "decoder_sparse_step", "multi_query", "new_decoder_architecture", "parallel_attn",
    "num_ln_in_parallel_attn", "bias", "alibi", "enable_bias", "do_layer_norm_before",
    "word_embed_proj_dim", "qk_layernorm", "add_cross_attention", "num_experts", "num_experts_per_tok",
    "moe_intermediate_size", "attn_logit_softcapping", "final_logit_softcapping", "text_config",
    "architectures",
]  # fmt: skip
KEYS = sorted({key for base in BASES for key in base} | set(_OPTIONAL))

_atoms = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=-4, max_value=200)
    | st.sampled_from([10**12, -(10**12), 1 << 62, 10**400])
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(known_families())
)
garbage = st.recursive(
    _atoms,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
REMOVED = object()
mutations = st.dictionaries(st.sampled_from(KEYS), garbage | st.just(REMOVED), max_size=4)


def mutate(base: dict[str, object], changes: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in {**base, **changes}.items() if value is not REMOVED}


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(BASES), mutations)
def test_only_our_errors_escape(base: dict[str, object], changes: dict[str, object]) -> None:
    try:
        model = read_config(mutate(base, changes), "fuzzed", "test")
    except PeftbenchError as error:
        assert error.what
        return
    assert num_parameters(model) == sum(weight.total for weight in weights_of(model)) > 0
    assert all(size > 0 for weight in weights_of(model) for size in weight.shape)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.text(max_size=12), garbage, max_size=5))
def test_any_object_is_refused_politely(config: dict[str, object]) -> None:
    try:
        read_config(config, "fuzzed", "test")
    except PeftbenchError as error:
        assert error.hint
