"""Code World Model: Llama with a window over three of four layers."""

from __future__ import annotations

from peftbench.inputs.model.config_keys import ConfigKeys
from peftbench.inputs.model.family import Family
from peftbench.inputs.model.field_groups import Fields, core_fields, rotary_fields, sliding_layers, window_fields


def _cwm(keys: ConfigKeys) -> Fields:
    core = rotary_fields(core_fields(keys, positions=131072, key_value_heads=8, head_dim=128))
    sliding = sliding_layers(keys, core["num_hidden_layers"], lambda i: i % 4 != 0)
    return {**core, **window_fields(keys, sliding, 8192), "mlp_bias": keys.flag("mlp_bias", False)}


FAMILIES = {"cwm": Family(read=_cwm)}
