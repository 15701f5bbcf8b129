"""StarCoder2: LayerNorm, a plain MLP with biases, a window over every layer, dropouts."""

from __future__ import annotations

from peftbench.inputs.model.config_keys import ConfigKeys
from peftbench.inputs.model.family import Family, Layout
from peftbench.inputs.model.field_groups import Fields, core_fields, every_layer, rotary_fields, window_fields


def _starcoder2(keys: ConfigKeys) -> Fields:
    act = "gelu_pytorch_tanh"
    core = rotary_fields(core_fields(keys, positions=4096, key_value_heads=2, tied=True, act=act))
    return {
        **core,
        **dict.fromkeys(("qkv_bias", "attention_output_bias", "mlp_bias"), keys.flag("use_bias", True)),
        **window_fields(keys, every_layer(core), None),
        "residual_dropout": keys.real("residual_dropout", 0.0),
        "embedding_dropout": keys.real("embedding_dropout", 0.0),
    }


FAMILIES = {
    "starcoder2": Family(read=_starcoder2, layout=Layout(inner=("c_fc",), down="c_proj"), norm="layer_norm"),
}
