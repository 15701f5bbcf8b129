"""GLM 4 in transformers' classes: half of each head rotated, gate and up in one matrix; from GLM-4-0414 four norms."""

from __future__ import annotations

from peftbench.inputs.model.config_keys import ConfigKeys
from peftbench.inputs.model.family import Family, Layout
from peftbench.inputs.model.field_groups import Fields, core_fields, rotary_factor, rotary_fields


def _glm(keys: ConfigKeys) -> Fields:
    """attention_bias is for queries, keys and values only."""
    core = core_fields(keys, positions=131072, key_value_heads=2, head_dim=128)
    return {**rotary_fields(core, rotary_factor(keys, 0.5)), "qkv_bias": keys.flag("attention_bias", True)}


def _glm4(keys: ConfigKeys) -> Fields:
    return {**_glm(keys), "norms_per_layer": 4}


_LAYOUT = Layout(inner=("gate_up_proj",), fused_gate=True)
_NORMS = ("input_layernorm", "post_self_attn_layernorm", "post_attention_layernorm", "post_mlp_layernorm")
_GLM = Family(read=_glm, layout=_LAYOUT, rotary="phi3")
FAMILIES = {
    "glm": _GLM,
    "glm4": _GLM._replace(read=_glm4, layout=_LAYOUT._replace(norms=_NORMS), liger=True),
}
