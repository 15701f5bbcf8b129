"""GPT-OSS: experts with biases, attention sinks, windows in every other layer."""

from __future__ import annotations

from peftbench.inputs.model.config_keys import ConfigKeys
from peftbench.inputs.model.family import Family, Layout
from peftbench.inputs.model.field_groups import (
    Fields,
    bias_fields,
    core_fields,
    expert_fields,
    rotary_fields,
    sliding_layers,
    window_fields,
)


def _gpt_oss(keys: ConfigKeys) -> Fields:
    core = rotary_fields(core_fields(keys, positions=131072, key_value_heads=8, head_dim=64))
    sliding = sliding_layers(keys, core["num_hidden_layers"], lambda i: i % 2 == 0)
    experts = expert_fields(keys, core["intermediate_size"], 128, 4)
    window = window_fields(keys, sliding, 128)
    return {**core, **bias_fields(keys, True), "mlp_bias": True, "attention_sinks": True, **window, **experts}


FAMILIES = {
    "gpt_oss": Family(
        read=_gpt_oss,
        spelled={"num_experts": ("num_local_experts", "num_experts")},
        layout=Layout(router="mlp.router", biased_experts=True, transposed_experts=True),
        norm="olmo2",
        rotary="gpt_oss",
        sdpa=False,
        clamped_gate=True,
    )
}
