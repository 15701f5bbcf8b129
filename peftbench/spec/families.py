"""What each architecture's config.json means: one function a family, with the defaults of transformers 5.

The defaults are those of `configuration_<family>.py`, the rest is what `modeling_<family>.py` builds from them;
tests/oracles/test_model_weights.py holds both to the real classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from peftbench.spec.config_keys import ConfigKeys

Fields = dict[str, Any]

_NO_NUMBER = -1  # never a default: marks that the key/value heads are as many as the query heads


def _core(
    keys: ConfigKeys,
    *,
    positions: int,
    tied: bool = False,
    act: str = "silu",
    inner: int | None = None,
    key_value_heads: int = _NO_NUMBER,
    head_dim: int | None = None,
    head_dim_key: bool = True,
    dropout: float = 0.0,
) -> Fields:
    """The fields every architecture has; `head_dim_key=False` for those that always divide."""
    hidden, heads = keys.whole("hidden_size"), keys.whole("num_attention_heads")
    given = keys.optional_whole("head_dim") if head_dim_key else None
    return {
        "hidden_size": hidden,
        "num_hidden_layers": keys.whole("num_hidden_layers"),
        "num_attention_heads": heads,
        "num_key_value_heads": _key_value_heads(keys, heads, key_value_heads),
        "head_dim": given or head_dim or _divide(keys, hidden, heads),
        "vocab_size": keys.whole("vocab_size"),
        "embedding_size": hidden,
        "intermediate_size": keys.whole("intermediate_size", inner),
        "max_position_embeddings": keys.whole("max_position_embeddings", positions),
        "tie_word_embeddings": keys.flag("tie_word_embeddings", tied),
        "hidden_act": keys.activation("hidden_act", act),
        "attention_dropout": keys.real("attention_dropout", dropout),
    }


def _key_value_heads(keys: ConfigKeys, heads: int, default: int) -> int:
    """Omitted means the class's default, null means as many as query heads."""
    fallback = heads if default == _NO_NUMBER or keys.has("num_key_value_heads") else default
    number = keys.whole("num_key_value_heads", fallback)
    if heads % number:
        raise keys.refuse("num_key_value_heads", number, f"a divisor of num_attention_heads ({heads})")
    return number


def _divide(keys: ConfigKeys, hidden: int, heads: int) -> int:
    if hidden % heads:
        raise keys.refuse("num_attention_heads", heads, f"a divisor of hidden_size ({hidden})")
    return hidden // heads


def _rotary(core: Fields, factor: float = 1.0) -> Fields:
    return {**core, "rotary_dim": int(core["head_dim"] * factor)}


def _rotary_factor(keys: ConfigKeys, default: float, old_key: str = "partial_rotary_factor") -> float:
    """The share of a head that is rotated, from rope_parameters (transformers 5) or from the older key."""
    for group in ("rope_scaling", "rope_parameters"):
        rope = keys.value(group)
        if isinstance(rope, Mapping) and rope.get("partial_rotary_factor") is not None:
            return ConfigKeys(rope, keys.name).real("partial_rotary_factor", default)
    return keys.real(old_key, default)


def _biases(keys: ConfigKeys, default: bool = False) -> Fields:
    """attention_bias switches all four projections of attention."""
    bias = keys.flag("attention_bias", default)
    return {"qkv_bias": bias, "attention_output_bias": bias}


def _window(keys: ConfigKeys, sliding_layers: tuple[int, ...], default: int | None) -> Fields:
    """A window is only kept where some layer slides; a window of null switches sliding off."""
    written = keys.has("sliding_window")
    window = keys.optional_whole("sliding_window") if written else default
    if window is None or not sliding_layers:
        return {}
    return {"sliding_window": window, "sliding_layers": sliding_layers}


def _all_layers(core: Fields) -> tuple[int, ...]:
    return tuple(range(core["num_hidden_layers"]))


def _sliding(keys: ConfigKeys, layers: int, slides: Callable[[int], bool]) -> tuple[int, ...]:
    """Layers whose layer_types entry is sliding_attention; `slides` decides where the key is omitted."""
    types = keys.layer_types(layers)
    if types is None:
        return tuple(i for i in range(layers) if slides(i))
    return tuple(i for i, kind in enumerate(types) if kind == "sliding_attention")


def llama(keys: ConfigKeys) -> Fields:
    core = _rotary(_core(keys, positions=2048))
    return {**core, **_biases(keys), "mlp_bias": keys.flag("mlp_bias", False)}


def mistral(keys: ConfigKeys) -> Fields:
    core = _rotary(_core(keys, positions=131072, key_value_heads=8))
    return {**core, **_window(keys, _all_layers(core), 4096)}


def mixtral(keys: ConfigKeys) -> Fields:
    core = _rotary(_core(keys, positions=131072, key_value_heads=8))
    return {**core, **_window(keys, _all_layers(core), None), **_experts(keys, core["intermediate_size"], 8, 2)}


def _experts(keys: ConfigKeys, inner: int, number: int, per_token: int) -> Fields:
    experts = keys.whole("num_experts", number)
    used = keys.whole("num_experts_per_tok", per_token)
    if used > experts:
        raise keys.refuse("num_experts_per_tok", used, f"at most the number of experts ({experts})")
    return {"num_experts": experts, "num_experts_per_tok": used, "moe_intermediate_size": inner}


def _qwen_window(keys: ConfigKeys, layers: int) -> Fields:
    """use_sliding_window is off by default; layers from max_window_layers on slide."""
    if not keys.flag("use_sliding_window", False):
        return {}
    first = keys.whole("max_window_layers", 28, low=0)
    return _window(keys, _sliding(keys, layers, lambda i: i >= first), 4096)


def qwen2(keys: ConfigKeys) -> Fields:
    core = _rotary(_core(keys, positions=32768, key_value_heads=32))
    return {**core, "qkv_bias": True, **_qwen_window(keys, core["num_hidden_layers"])}


def qwen3(keys: ConfigKeys) -> Fields:
    core = _rotary(_core(keys, positions=32768, key_value_heads=32, head_dim=128))
    return {**core, **_biases(keys), "qk_norm": "head", **_qwen_window(keys, core["num_hidden_layers"])}


def qwen3_moe(keys: ConfigKeys) -> Fields:
    core = _rotary(_core(keys, positions=32768, key_value_heads=4))
    window = _window(keys, _all_layers(core), 4096) if keys.flag("use_sliding_window", False) else {}
    step, dense = keys.whole("decoder_sparse_step", 1), keys.whole_list("mlp_only_layers") or ()
    dense_layers = tuple(i for i in _all_layers(core) if i in dense or (i + 1) % step)
    experts = _experts(keys, keys.whole("moe_intermediate_size", 768), 128, 8)
    return {**core, **_biases(keys), "qk_norm": "head", **window, **experts, "dense_layers": dense_layers}


def gemma(keys: ConfigKeys) -> Fields:
    core = _rotary(_core(keys, positions=8192, tied=True, act="gelu_pytorch_tanh", key_value_heads=16, head_dim=256))
    if core["hidden_act"] == "gelu":  # a legacy value that GemmaConfig replaces
        core["hidden_act"] = "gelu_pytorch_tanh"
    return {**core, **_biases(keys)}


def gemma2(keys: ConfigKeys) -> Fields:
    core = _rotary(_core(keys, positions=8192, tied=True, act="gelu_pytorch_tanh", key_value_heads=4, head_dim=256))
    sliding = _sliding(keys, core["num_hidden_layers"], lambda i: i % 2 == 0)
    softcaps = _softcaps(keys, attention=50.0, final=30.0)
    return {**core, **_biases(keys), "norms_per_layer": 4, **softcaps, **_window(keys, sliding, 4096)}


def gemma3_text(keys: ConfigKeys) -> Fields:
    core = _rotary(_core(keys, positions=131072, tied=True, act="gelu_pytorch_tanh", key_value_heads=4, head_dim=256))
    pattern = keys.whole("sliding_window_pattern", 6)
    sliding = _sliding(keys, core["num_hidden_layers"], lambda i: (i + 1) % pattern != 0)
    norms = {"norms_per_layer": 4, "qk_norm": "head"}
    return {**core, **_biases(keys), **norms, **_softcaps(keys), **_window(keys, sliding, 4096)}


def _softcaps(keys: ConfigKeys, attention: float | None = None, final: float | None = None) -> Fields:
    """Omitted means the class's default, null means none."""
    defaults = {"attn_logit_softcapping": attention, "final_logit_softcapping": final}
    return {k: keys.optional_real(k, 1e6) if keys.has(k) else default for k, default in defaults.items()}


def phi(keys: ConfigKeys) -> Fields:
    core = _rotary(_core(keys, positions=2048, act="gelu_new"), _rotary_factor(keys, 0.5))
    biases = dict.fromkeys(("qkv_bias", "attention_output_bias", "mlp_bias", "lm_head_bias"), True)
    norms = {"norms_per_layer": 1, "qk_norm": "head" if keys.flag("qk_layernorm", False) else "none"}
    dropouts = {"residual_dropout": keys.real("resid_pdrop", 0.0), "embedding_dropout": keys.real("embd_pdrop", 0.0)}
    return {**core, **biases, **norms, **dropouts, "parallel_attention": True}


def phi3(keys: ConfigKeys) -> Fields:
    core = _rotary(_core(keys, positions=4096), _rotary_factor(keys, 1.0))
    dropout = {"residual_dropout": keys.real("resid_pdrop", 0.0)}  # embd_pdrop exists but is never applied
    return {**core, **dropout, **_window(keys, _all_layers(core), None)}


def gpt2(keys: ConfigKeys) -> Fields:
    return _gpt2_core(keys, "gelu_new", kv=None)


def gpt_bigcode(keys: ConfigKeys) -> Fields:
    return _gpt2_core(keys, "gelu_pytorch_tanh", kv=1 if keys.flag("multi_query", True) else None)


def _gpt2_core(keys: ConfigKeys, act: str, kv: int | None) -> Fields:
    """GPT-2: learned positions, biases everywhere, dropout of 0.1 unless the config says otherwise."""
    if keys.flag("add_cross_attention", False):
        raise keys.refuse("add_cross_attention", True, "false: only decoders without an encoder can be planned")
    inner = 4 * keys.whole("hidden_size")
    core = _core(keys, positions=1024, tied=True, act=act, inner=inner, head_dim_key=False, dropout=0.1)
    biases = dict.fromkeys(("qkv_bias", "attention_output_bias", "mlp_bias"), True)
    dropouts = {"residual_dropout": keys.real("resid_pdrop", 0.1), "embedding_dropout": keys.real("embd_pdrop", 0.1)}
    return {
        **core,
        **biases,
        **dropouts,
        "num_key_value_heads": kv or core["num_attention_heads"],
        "learned_positions": core["max_position_embeddings"],
    }


def gpt_neox(keys: ConfigKeys) -> Fields:
    core = _core(keys, positions=2048, act="gelu", head_dim_key=False)
    core["num_key_value_heads"] = core["num_attention_heads"]
    dropout = keys.real("hidden_dropout", 0.0)
    return {
        **_rotary(core, _rotary_factor(keys, 0.25, "rotary_pct")),
        **_biases(keys, True),
        "mlp_bias": True,
        "residual_dropout": dropout,
        "embedding_dropout": dropout,
        "parallel_attention": keys.flag("use_parallel_residual", True),
    }


def opt(keys: ConfigKeys) -> Fields:
    """OPT: two spare rows of positions, and for OPT-350m post-norm and a narrower embedding."""
    if not keys.flag("layer_norm_elementwise_affine", True):
        raise keys.refuse("layer_norm_elementwise_affine", False, "true: OPT without norm weights is not modelled")
    core = _core(keys, positions=2048, tied=True, act="relu", head_dim_key=False)
    core["num_key_value_heads"] = core["num_attention_heads"]
    before = keys.flag("do_layer_norm_before", True)
    bias = keys.flag("enable_bias", True)
    return {
        **core,
        **dict.fromkeys(("qkv_bias", "attention_output_bias", "mlp_bias"), bias),
        "embedding_size": keys.whole("word_embed_proj_dim", core["hidden_size"]),
        "learned_positions": core["max_position_embeddings"] + 2,
        "residual_dropout": keys.real("dropout", 0.1),
        "norm_before": before,
        "final_norm": before and not keys.flag("_remove_final_layer_norm", False),
    }


def olmo2(keys: ConfigKeys) -> Fields:
    core = _rotary(_core(keys, positions=2048))
    return {**core, **_biases(keys), "qk_norm": "full", "norm_before": False}


def smollm3(keys: ConfigKeys) -> Fields:
    core = _rotary(_core(keys, positions=32768, tied=True, key_value_heads=4))
    layers, interval = core["num_hidden_layers"], keys.whole("no_rope_layer_interval", 4)
    rotated = keys.whole_list("no_rope_layers") or tuple((i + 1) % interval for i in range(layers))
    if len(rotated) < layers:
        raise keys.refuse("no_rope_layers", list(rotated), f"a list of {layers} numbers, one a layer")
    without = tuple(i for i in range(layers) if not rotated[i])
    sliding = _sliding(keys, layers, lambda i: i in without) if keys.flag("use_sliding_window", False) else ()
    bias = {**_biases(keys), "mlp_bias": keys.flag("mlp_bias", False)}
    return {**core, **bias, "layers_without_rope": without, **_window(keys, sliding, None)}


def falcon(keys: ConfigKeys) -> Fields:
    core = _core(keys, positions=2048, tied=True, act="gelu", inner=4 * keys.whole("hidden_size"), head_dim_key=False)
    alibi, parallel = keys.flag("alibi", False), keys.flag("parallel_attn", True)
    new = keys.flag("new_decoder_architecture", False)
    if not new:  # num_kv_heads is only read by the new architecture
        core["num_key_value_heads"] = 1 if keys.flag("multi_query", True) else core["num_attention_heads"]
    norms = _falcon_norms(keys, parallel, new)
    bias = dict.fromkeys(("qkv_bias", "attention_output_bias", "mlp_bias"), keys.flag("bias", False))
    return {
        **_rotary(core, 0.0 if alibi else 1.0),
        **bias,
        "alibi": alibi,
        "parallel_attention": parallel,
        "norms_per_layer": norms,
        "residual_dropout": keys.real("hidden_dropout", 0.0),
    }


def _falcon_norms(keys: ConfigKeys, parallel: bool, new: bool) -> int:
    """Norms of a layer; combinations whose forward pass fails in transformers are refused."""
    if not parallel:
        if new:
            raise keys.refuse("parallel_attn", False, "true with new_decoder_architecture")
        return 2
    norms = keys.whole("num_ln_in_parallel_attn", 2 if new else 1)
    if norms > (2 if new else 1):
        raise keys.refuse("num_ln_in_parallel_attn", norms, "1, or 2 with new_decoder_architecture")
    return norms


def gpt_oss(keys: ConfigKeys) -> Fields:
    core = _rotary(_core(keys, positions=131072, key_value_heads=8, head_dim=64))
    sliding = _sliding(keys, core["num_hidden_layers"], lambda i: i % 2 == 0)
    experts = _experts(keys, core["intermediate_size"], 128, 4)
    window = _window(keys, sliding, 128)
    return {**core, **_biases(keys, True), "mlp_bias": True, "attention_sinks": True, **window, **experts}


FAMILIES: dict[str, Callable[[ConfigKeys], Fields]] = {
    family.__name__: family
    for family in (
        llama, mistral, qwen2, qwen3, gemma, gemma2, gemma3_text, phi, phi3, gpt2, gpt_bigcode, gpt_neox, opt, olmo2,
        smollm3, falcon, mixtral, qwen3_moe, gpt_oss,
    )
}  # fmt: skip

_GPT2_SPELLINGS = {
    "hidden_size": ("n_embd", "hidden_size"),
    "num_hidden_layers": ("n_layer", "num_hidden_layers"),
    "num_attention_heads": ("n_head", "num_attention_heads"),
    "max_position_embeddings": ("n_positions", "max_position_embeddings"),
    "intermediate_size": ("n_inner",),
    "hidden_act": ("activation_function",),
    "attention_dropout": ("attn_pdrop",),
    "num_key_value_heads": (),
}
_EXPERTS = {"num_experts": ("num_local_experts", "num_experts")}

SPELLINGS: dict[str, dict[str, tuple[str, ...]]] = {
    "gpt2": _GPT2_SPELLINGS,
    "gpt_bigcode": _GPT2_SPELLINGS,
    "opt": {"intermediate_size": ("ffn_dim",), "hidden_act": ("activation_function",), "num_key_value_heads": ()},
    "gpt_neox": {"num_key_value_heads": ()},
    "falcon": {
        "hidden_size": ("n_embed", "hidden_size"),
        "intermediate_size": ("ffn_hidden_size",),
        "hidden_act": ("activation",),
        "num_key_value_heads": ("num_kv_heads",),
    },
    "gemma2": {"hidden_act": ("hidden_activation",)},
    "gemma3_text": {"hidden_act": ("hidden_activation",)},
    "mixtral": _EXPERTS,
    "qwen3_moe": {"num_experts": ("num_experts", "num_local_experts")},
    "gpt_oss": _EXPERTS,
}
"""Where an architecture writes a value under another key than ModelSpec does: its attribute_map, mostly."""
