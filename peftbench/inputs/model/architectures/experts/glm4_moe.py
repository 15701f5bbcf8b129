"""GLM 4.5 and dots.llm1: dense layers first, shared experts, scores by a sigmoid in float32."""

from __future__ import annotations

from peftbench.inputs.model.config_keys import ConfigKeys
from peftbench.inputs.model.family import QWEN2_MOE_EXPERTS, Family, Layout, Router
from peftbench.inputs.model.field_groups import (
    Fields,
    bias_fields,
    core_fields,
    expert_fields,
    rotary_factor,
    rotary_fields,
    sliding_layers,
    window_fields,
)


def _glm4_moe(keys: ConfigKeys) -> Fields:
    """attention_bias is for queries, keys and values only."""
    core = core_fields(keys, positions=131072, key_value_heads=8, inner=10944)
    experts = expert_fields(keys, keys.whole("moe_intermediate_size", 1408), 128, 8)
    return {
        **rotary_fields(core, rotary_factor(keys, 0.5)), **experts,
        "qkv_bias": keys.flag("attention_bias", False),
        "qk_norm": "head" if keys.flag("use_qk_norm", False) else "none",
        "shared_intermediate_size": experts["moe_intermediate_size"] * keys.whole("n_shared_experts", 1),
        "dense_layers": tuple(range(min(keys.whole("first_k_dense_replace", 1, low=0), core["num_hidden_layers"]))),
    }  # fmt: skip


def _dots1(keys: ConfigKeys) -> Fields:
    """Layers from max_window_layers on slide; the class has no default for its experts."""
    core = rotary_fields(core_fields(keys, positions=2048, key_value_heads=32, inner=10944))
    first = keys.whole("max_window_layers", 62, low=0)
    sliding = sliding_layers(keys, core["num_hidden_layers"], lambda i: i >= first)
    experts = expert_fields(keys, keys.whole("moe_intermediate_size", 1408), None, None)
    return {
        **core, **bias_fields(keys), **experts, **window_fields(keys, sliding, 4096), "qk_norm": "head",
        "shared_intermediate_size": experts["moe_intermediate_size"] * keys.whole("n_shared_experts"),
        "dense_layers": tuple(range(min(keys.whole("first_k_dense_replace", 0, low=0), core["num_hidden_layers"]))),
    }  # fmt: skip


_GLM4_MOE = Family(
    read=_glm4_moe,
    spelled={"num_experts": ("n_routed_experts", "num_local_experts")},
    layout=Layout(router="mlp.gate"),
    rotary="phi3",
    router=Router("sigmoid", float32="gate", narrows=False),
    expert_targets=QWEN2_MOE_EXPERTS,
)
FAMILIES = {"glm4_moe": _GLM4_MOE, "dots1": _GLM4_MOE._replace(read=_dots1, rotary="llama")}
