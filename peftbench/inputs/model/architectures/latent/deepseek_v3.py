"""DeepSeek V3, which Moonlight and Kimi K2 are too: latent attention, dense layers first, then shared experts."""

from __future__ import annotations

from peftbench.inputs.model.architectures.latent.fields import latent_fields, with_experts
from peftbench.inputs.model.config_keys import ConfigKeys
from peftbench.inputs.model.family import QWEN2_MOE_EXPERTS, Family, Layout, Router
from peftbench.inputs.model.field_groups import Fields, expert_fields


def _deepseek_v3(keys: ConfigKeys) -> Fields:
    core, attention = latent_fields(keys, positions=4096, inner=18432)
    experts = expert_fields(keys, keys.whole("moe_intermediate_size", 2048), 256, 8)
    dense = range(keys.whole("first_k_dense_replace", 3, low=0))
    return with_experts(core, attention, experts, keys.whole("n_shared_experts", 1), dense)


FAMILIES = {
    "deepseek_v3": Family(
        read=_deepseek_v3,
        spelled={"num_experts": ("n_routed_experts", "num_local_experts")},
        layout=Layout(router="mlp.gate"),
        router=Router("sigmoid", float32="gate", narrows=False),
        expert_targets=QWEN2_MOE_EXPERTS,
    ),
}
