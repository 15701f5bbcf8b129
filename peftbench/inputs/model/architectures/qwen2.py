"""Qwen2, Qwen3 and Qwen3-MoE: biases of the projections give way to norms of queries and keys, and to experts."""

from __future__ import annotations

from peftbench.inputs.model.config_keys import ConfigKeys
from peftbench.inputs.model.family import LLAMA_TARGETS, QWEN2_MOE_EXPERTS, Family, Layout, SplitExperts
from peftbench.inputs.model.field_groups import (
    Fields,
    bias_fields,
    core_fields,
    every_layer,
    expert_fields,
    rotary_fields,
    sliding_layers,
    window_fields,
)


def _window(keys: ConfigKeys, layers: int) -> Fields:
    """use_sliding_window is off by default; layers from max_window_layers on slide."""
    if not keys.flag("use_sliding_window", False):
        return {}
    first = keys.whole("max_window_layers", 28, low=0)
    return window_fields(keys, sliding_layers(keys, layers, lambda i: i >= first), 4096)


def _qwen2(keys: ConfigKeys) -> Fields:
    core = rotary_fields(core_fields(keys, positions=32768, key_value_heads=32))
    return {**core, "qkv_bias": True, **_window(keys, core["num_hidden_layers"])}


def _qwen3(keys: ConfigKeys) -> Fields:
    core = rotary_fields(core_fields(keys, positions=32768, key_value_heads=32, head_dim=128))
    return {**core, **bias_fields(keys), "qk_norm": "head", **_window(keys, core["num_hidden_layers"])}


def _qwen3_moe(keys: ConfigKeys) -> Fields:
    core = rotary_fields(core_fields(keys, positions=32768, key_value_heads=4))
    window = window_fields(keys, every_layer(core), 4096) if keys.flag("use_sliding_window", False) else {}
    experts = expert_fields(keys, keys.whole("moe_intermediate_size", 768), 128, 8)
    return {**core, **bias_fields(keys), "qk_norm": "head", **window, **experts, **sparse_layers(keys, core)}


def sparse_layers(keys: ConfigKeys, core: Fields) -> Fields:
    """Experts are in every decoder_sparse_step-th layer that mlp_only_layers leaves out."""
    step, dense = keys.whole("decoder_sparse_step", 1), keys.whole_list("mlp_only_layers") or ()
    return {"dense_layers": tuple(i for i in every_layer(core) if i in dense or (i + 1) % step)}


_TARGETS = LLAMA_TARGETS._replace(ia3=("q_proj", "v_proj", "down_proj"), ln_tuning=("post_attention_layernorm",))
FAMILIES = {
    "qwen2": Family(read=_qwen2, repeats_keys_before_4_48=True, liger=True, targets=_TARGETS),
    "qwen3": Family(read=_qwen3, liger=True, targets=_TARGETS),
    "qwen3_moe": Family(
        read=_qwen3_moe,
        spelled={"num_experts": ("num_experts", "num_local_experts")},
        layout=Layout(router="mlp.gate"),
        liger=True,
        split_experts=SplitExperts(),
        expert_targets=QWEN2_MOE_EXPERTS,
    ),
}
