"""What each architecture's config.json means: one function a family, with the defaults of transformers 5.

The defaults are those of `configuration_<family>.py`, the rest is what `modeling_<family>.py` builds from
them; tests/oracles/weights/test_model_weights.py holds both to the real classes.
"""

from __future__ import annotations

from collections.abc import Callable

from peftbench.inputs.model.config_keys import ConfigKeys
from peftbench.inputs.model.field_groups import (
    Fields,
    bias_fields,
    core_fields,
    every_layer,
    expert_fields,
    rotary_factor,
    rotary_fields,
    sliding_layers,
    softcap_fields,
    window_fields,
)


def llama(keys: ConfigKeys) -> Fields:
    core = rotary_fields(core_fields(keys, positions=2048))
    return {**core, **bias_fields(keys), "mlp_bias": keys.flag("mlp_bias", False)}


def mistral(keys: ConfigKeys) -> Fields:
    core = rotary_fields(core_fields(keys, positions=131072, key_value_heads=8))
    return {**core, **window_fields(keys, every_layer(core), 4096)}


def mixtral(keys: ConfigKeys) -> Fields:
    core = rotary_fields(core_fields(keys, positions=131072, key_value_heads=8))
    return {
        **core,
        **window_fields(keys, every_layer(core), None),
        **expert_fields(keys, core["intermediate_size"], 8, 2),
    }


def _qwen_window(keys: ConfigKeys, layers: int) -> Fields:
    """use_sliding_window is off by default; layers from max_window_layers on slide."""
    if not keys.flag("use_sliding_window", False):
        return {}
    first = keys.whole("max_window_layers", 28, low=0)
    return window_fields(keys, sliding_layers(keys, layers, lambda i: i >= first), 4096)


def qwen2(keys: ConfigKeys) -> Fields:
    core = rotary_fields(core_fields(keys, positions=32768, key_value_heads=32))
    return {**core, "qkv_bias": True, **_qwen_window(keys, core["num_hidden_layers"])}


def qwen3(keys: ConfigKeys) -> Fields:
    core = rotary_fields(core_fields(keys, positions=32768, key_value_heads=32, head_dim=128))
    return {**core, **bias_fields(keys), "qk_norm": "head", **_qwen_window(keys, core["num_hidden_layers"])}


def qwen3_moe(keys: ConfigKeys) -> Fields:
    core = rotary_fields(core_fields(keys, positions=32768, key_value_heads=4))
    window = window_fields(keys, every_layer(core), 4096) if keys.flag("use_sliding_window", False) else {}
    step, dense = keys.whole("decoder_sparse_step", 1), keys.whole_list("mlp_only_layers") or ()
    dense_layers = tuple(i for i in every_layer(core) if i in dense or (i + 1) % step)
    experts = expert_fields(keys, keys.whole("moe_intermediate_size", 768), 128, 8)
    return {**core, **bias_fields(keys), "qk_norm": "head", **window, **experts, "dense_layers": dense_layers}


def _gemma_core(keys: ConfigKeys, positions: int, key_value_heads: int) -> Fields:
    act = "gelu_pytorch_tanh"
    return rotary_fields(core_fields(keys, positions, key_value_heads, tied=True, act=act, head_dim=256))


def gemma(keys: ConfigKeys) -> Fields:
    core = _gemma_core(keys, positions=8192, key_value_heads=16)
    if core["hidden_act"] == "gelu":  # a legacy value that GemmaConfig replaces
        core["hidden_act"] = "gelu_pytorch_tanh"
    return {**core, **bias_fields(keys)}


def gemma2(keys: ConfigKeys) -> Fields:
    core = _gemma_core(keys, positions=8192, key_value_heads=4)
    sliding = sliding_layers(keys, core["num_hidden_layers"], lambda i: i % 2 == 0)
    softcaps = softcap_fields(keys, attention=50.0, final=30.0)
    return {
        **core,
        **bias_fields(keys),
        "norms_per_layer": 4,
        **softcaps,
        **window_fields(keys, sliding, 4096),
    }


def gemma3_text(keys: ConfigKeys) -> Fields:
    core = _gemma_core(keys, positions=131072, key_value_heads=4)
    pattern = keys.whole("sliding_window_pattern", 6)
    sliding = sliding_layers(keys, core["num_hidden_layers"], lambda i: (i + 1) % pattern != 0)
    norms = {"norms_per_layer": 4, "qk_norm": "head"}
    return {
        **core,
        **bias_fields(keys),
        **norms,
        **softcap_fields(keys),
        **window_fields(keys, sliding, 4096),
    }


def _dropouts(keys: ConfigKeys, default: float) -> Fields:
    return {
        "residual_dropout": keys.real("resid_pdrop", default),
        "embedding_dropout": keys.real("embd_pdrop", default),
    }


def phi(keys: ConfigKeys) -> Fields:
    core = rotary_fields(core_fields(keys, positions=2048, act="gelu_new"), rotary_factor(keys, 0.5))
    biases = dict.fromkeys(("qkv_bias", "attention_output_bias", "mlp_bias", "lm_head_bias"), True)
    norms = {"norms_per_layer": 1, "qk_norm": "head" if keys.flag("qk_layernorm", False) else "none"}
    return {**core, **biases, **norms, **_dropouts(keys, 0.0), "parallel_attention": True}


def phi3(keys: ConfigKeys) -> Fields:
    core = rotary_fields(core_fields(keys, positions=4096), rotary_factor(keys, 1.0))
    dropout = {"residual_dropout": keys.real("resid_pdrop", 0.0)}  # embd_pdrop exists but is never applied
    return {**core, **dropout, **window_fields(keys, every_layer(core), None)}


def gpt2(keys: ConfigKeys) -> Fields:
    return _gpt2_core(keys, "gelu_new", kv=None)


def gpt_bigcode(keys: ConfigKeys) -> Fields:
    return _gpt2_core(keys, "gelu_pytorch_tanh", kv=1 if keys.flag("multi_query", True) else None)


def _gpt2_core(keys: ConfigKeys, act: str, kv: int | None) -> Fields:
    """GPT-2: learned positions, biases everywhere, dropout of 0.1 unless the config says otherwise."""
    if keys.flag("add_cross_attention", False):
        raise keys.refuse("add_cross_attention", True, "false")
    inner = 4 * keys.whole("hidden_size")
    core = core_fields(keys, positions=1024, tied=True, act=act, inner=inner, head_dim_key=False, dropout=0.1)
    biases = dict.fromkeys(("qkv_bias", "attention_output_bias", "mlp_bias"), True)
    return {
        **core,
        **biases,
        **_dropouts(keys, 0.1),
        "num_key_value_heads": kv or core["num_attention_heads"],
        "learned_positions": core["max_position_embeddings"],
    }


def gpt_neox(keys: ConfigKeys) -> Fields:
    core = core_fields(keys, positions=2048, act="gelu", head_dim_key=False)
    dropout = keys.real("hidden_dropout", 0.0)
    return {
        **rotary_fields(core, rotary_factor(keys, 0.25, "rotary_pct")),
        **bias_fields(keys, True),
        "mlp_bias": True,
        "residual_dropout": dropout,
        "embedding_dropout": dropout,
        "parallel_attention": keys.flag("use_parallel_residual", True),
    }


def opt(keys: ConfigKeys) -> Fields:
    """OPT: two spare rows of positions, and for OPT-350m post-norm and a narrower embedding."""
    if not keys.flag("layer_norm_elementwise_affine", True):
        raise keys.refuse("layer_norm_elementwise_affine", False, "true")
    core = core_fields(keys, positions=2048, tied=True, act="relu", head_dim_key=False)
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
    core = rotary_fields(core_fields(keys, positions=2048))
    return {**core, **bias_fields(keys), "qk_norm": "full", "norm_before": False}


def smollm3(keys: ConfigKeys) -> Fields:
    core = rotary_fields(core_fields(keys, positions=32768, tied=True, key_value_heads=4))
    layers, interval = core["num_hidden_layers"], keys.whole("no_rope_layer_interval", 4)
    rotated = keys.whole_list("no_rope_layers") or tuple((i + 1) % interval for i in range(layers))
    if len(rotated) < layers:
        raise keys.refuse("no_rope_layers", list(rotated), f"a list of {layers} numbers, one a layer")
    without = tuple(i for i in range(layers) if not rotated[i])
    fields = {
        **core,
        **bias_fields(keys),
        "mlp_bias": keys.flag("mlp_bias", False),
        "layers_without_rope": without,
    }
    if keys.flag("use_sliding_window", False):
        fields |= window_fields(keys, sliding_layers(keys, layers, lambda i: i in without), None)
    return fields


def falcon(keys: ConfigKeys) -> Fields:
    inner = 4 * keys.whole("hidden_size")
    core = core_fields(keys, positions=2048, tied=True, act="gelu", inner=inner, head_dim_key=False)
    alibi, parallel = keys.flag("alibi", False), keys.flag("parallel_attn", True)
    new = keys.flag("new_decoder_architecture", False)
    if not new:  # num_kv_heads is only read by the new architecture
        core["num_key_value_heads"] = 1 if keys.flag("multi_query", True) else core["num_attention_heads"]
    norms = _falcon_norms(keys, parallel, new)
    bias = dict.fromkeys(("qkv_bias", "attention_output_bias", "mlp_bias"), keys.flag("bias", False))
    return {
        **rotary_fields(core, 0.0 if alibi else 1.0),
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
    core = rotary_fields(core_fields(keys, positions=131072, key_value_heads=8, head_dim=64))
    sliding = sliding_layers(keys, core["num_hidden_layers"], lambda i: i % 2 == 0)
    experts = expert_fields(keys, core["intermediate_size"], 128, 4)
    window = window_fields(keys, sliding, 128)
    return {**core, **bias_fields(keys, True), "mlp_bias": True, "attention_sinks": True, **window, **experts}


FAMILIES: dict[str, Callable[[ConfigKeys], Fields]] = {
    family.__name__: family
    for family in (
        llama, mistral, qwen2, qwen3, gemma, gemma2, gemma3_text, phi, phi3, gpt2, gpt_bigcode, gpt_neox, opt,
        olmo2, smollm3, falcon, mixtral, qwen3_moe, gpt_oss,
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
_EXPERTS: dict[str, tuple[str, ...]] = {"num_experts": ("num_local_experts", "num_experts")}

SPELLINGS: dict[str, dict[str, tuple[str, ...]]] = {
    "gpt2": _GPT2_SPELLINGS,
    "gpt_bigcode": _GPT2_SPELLINGS,
    "opt": {
        "intermediate_size": ("ffn_dim",),
        "hidden_act": ("activation_function",),
        "num_key_value_heads": (),
    },
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
