"""Qwen2-MoE: beside the experts a network with a gate of its own."""

from __future__ import annotations

from peftbench.inputs.model.architectures.qwen2 import sparse_layers
from peftbench.inputs.model.config_keys import ConfigKeys
from peftbench.inputs.model.family import Family, Layout, Router, SplitExperts
from peftbench.inputs.model.field_groups import (
    Fields,
    core_fields,
    expert_fields,
    rotary_fields,
    sliding_layers,
    window_fields,
)


def _window(keys: ConfigKeys, layers: int) -> Fields:
    """use_sliding_window is off by default; every other layer before max_window_layers slides."""
    if not keys.flag("use_sliding_window", False):
        return {}
    last = keys.whole("max_window_layers", 28, low=0)
    return window_fields(keys, sliding_layers(keys, layers, lambda i: i % 2 == 0 and i < last), 4096)


def _qwen2_moe(keys: ConfigKeys) -> Fields:
    core = rotary_fields(core_fields(keys, positions=32768, key_value_heads=16, inner=5632))
    experts = expert_fields(keys, keys.whole("moe_intermediate_size", 1408), 60, 4)
    return {
        **core, **experts, **_window(keys, core["num_hidden_layers"]), **sparse_layers(keys, core),
        "qkv_bias": keys.flag("qkv_bias", True),
        "shared_intermediate_size": keys.whole("shared_expert_intermediate_size", 5632),
    }  # fmt: skip


FAMILIES = {
    "qwen2_moe": Family(
        read=_qwen2_moe,
        spelled={"num_experts": ("num_experts", "num_local_experts")},
        layout=Layout(router="mlp.gate", shared="mlp.shared_expert.", shared_gate="mlp.shared_expert_gate"),
        router=Router(shared_first=True),
        split_experts=SplitExperts(),
    )
}
