"""MiniMax-M2: norms over all heads of queries and keys, half of each head rotated, scores by a sigmoid."""

from __future__ import annotations

from peftbench.inputs.model.config_keys import ConfigKeys
from peftbench.inputs.model.family import Family, Layout, Router
from peftbench.inputs.model.field_groups import Fields, core_fields, expert_fields, rotary_factor


def _minimax_m2(keys: ConfigKeys) -> Fields:
    """router_jitter_noise, 0 in every checkpoint, multiplies the stream in place."""
    core = core_fields(keys, positions=196608, key_value_heads=8, head_dim=128, inner=1536)
    rotary = keys.optional_whole("rotary_dim") or int(core["head_dim"] * rotary_factor(keys, 1.0))
    return {**core, "rotary_dim": rotary, "qk_norm": "full", **expert_fields(keys, core["intermediate_size"], 256, 8)}


FAMILIES = {
    "minimax_m2": Family(
        read=_minimax_m2,
        spelled={"num_experts": ("num_local_experts", "num_experts")},
        layout=Layout(router="mlp.gate"),
        rotary="phi3",
        router=Router("sigmoid", narrows=False),
        expert_targets={"gate": "gate", "w1": "gate_up_proj", "w3": "gate_up_proj", "w2": "down_proj"},
    )
}
