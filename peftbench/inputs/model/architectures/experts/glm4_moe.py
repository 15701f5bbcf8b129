"""GLM 4.5 and dots.llm1: dense layers first, shared experts, scores by a sigmoid in float32."""

from __future__ import annotations

from peftbench.inputs.model.config_keys import ConfigKeys
from peftbench.inputs.model.family import QWEN2_MOE_EXPERTS, Family, Layout, Router
from peftbench.inputs.model.field_groups import Fields, core_fields, expert_fields, rotary_factor, rotary_fields


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


FAMILIES = {
    "glm4_moe": Family(
        read=_glm4_moe,
        spelled={"num_experts": ("n_routed_experts", "num_local_experts")},
        layout=Layout(router="mlp.gate"),
        rotary="phi3",
        router=Router("sigmoid", float32="gate", narrows=False),
        expert_targets=QWEN2_MOE_EXPERTS,
    ),
}
