"""Seed-OSS: Llama with biases of queries, keys and values, and with dropouts."""

from __future__ import annotations

from peftbench.inputs.model.config_keys import ConfigKeys
from peftbench.inputs.model.family import Family
from peftbench.inputs.model.field_groups import Fields, core_fields, rotary_fields


def _seed_oss(keys: ConfigKeys) -> Fields:
    """Both dropouts are 0.1 unless the config says otherwise."""
    core = core_fields(keys, positions=524_288, key_value_heads=8, head_dim=128, dropout=0.1)
    return {
        **rotary_fields(core),
        "qkv_bias": keys.flag("attention_bias", True),
        "attention_output_bias": keys.flag("attention_out_bias", False),
        "mlp_bias": keys.flag("mlp_bias", False),
        "residual_dropout": keys.real("residual_dropout", 0.1),
    }


FAMILIES = {"seed_oss": Family(read=_seed_oss)}
