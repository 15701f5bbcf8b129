"""Nemotron and Arcee: plain MLPs of squared ReLU; Nemotron has LayerNorm, and rotates half of each head."""

from __future__ import annotations

from peftbench.inputs.model.config_keys import ConfigKeys
from peftbench.inputs.model.family import Family, Layout
from peftbench.inputs.model.field_groups import Fields, bias_fields, core_fields, rotary_factor, rotary_fields


def _nemotron(keys: ConfigKeys) -> Fields:
    core = rotary_fields(core_fields(keys, positions=4096, act="relu2"), rotary_factor(keys, 0.5))
    return {**core, **bias_fields(keys), "mlp_bias": keys.flag("mlp_bias", False)}


def _arcee(keys: ConfigKeys) -> Fields:
    core = rotary_fields(core_fields(keys, positions=4096, act="relu2"))
    return {**core, **bias_fields(keys), "mlp_bias": keys.flag("mlp_bias", False)}


_LAYOUT = Layout(inner=("up_proj",))
FAMILIES = {
    "nemotron": Family(read=_nemotron, layout=_LAYOUT, norm="layer_norm_1p", rotary="phi3"),
    "arcee": Family(read=_arcee, layout=_LAYOUT),
}
