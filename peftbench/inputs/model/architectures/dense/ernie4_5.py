"""ERNIE 4.5: Llama that rotates in float32; Helium, with norms in float32."""

from __future__ import annotations

from peftbench.inputs.model.config_keys import ConfigKeys
from peftbench.inputs.model.family import Family
from peftbench.inputs.model.field_groups import Fields, core_fields, rotary_fields


def _ernie4_5(keys: ConfigKeys) -> Fields:
    """The class has no dropout of attention."""
    core = rotary_fields(core_fields(keys, positions=131072, key_value_heads=2, head_dim=128, tied=True))
    biases = dict.fromkeys(("qkv_bias", "attention_output_bias", "mlp_bias"), keys.flag("use_bias", False))
    return {**core, **biases, "attention_dropout": 0.0}


def _helium(keys: ConfigKeys) -> Fields:
    """attention_bias is for queries, keys and values only."""
    core = rotary_fields(core_fields(keys, positions=4096, key_value_heads=20, head_dim=128))
    heads = core["hidden_size"] // core["head_dim"]
    if heads * core["head_dim"] != core["hidden_size"] or heads != core["num_attention_heads"]:
        raise keys.refuse("num_attention_heads", core["num_attention_heads"], "hidden_size / head_dim")
    return {**core, "qkv_bias": keys.flag("attention_bias", False), "mlp_bias": keys.flag("mlp_bias", False)}


FAMILIES = {
    "ernie4_5": Family(read=_ernie4_5, rotary="float32"),
    "helium": Family(read=_helium, norm="gemma"),
}
