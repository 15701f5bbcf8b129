"""Nemotron, Arcee, Jais 2 and Apertus: plain MLPs, of squared ReLU or xIELU; Nemotron and Jais 2 have LayerNorm."""

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


def _jais2(keys: ConfigKeys) -> Fields:
    core = rotary_fields(core_fields(keys, positions=8192, act="relu2"))
    return {**core, **bias_fields(keys, True), "mlp_bias": keys.flag("mlp_bias", True)}


def _apertus(keys: ConfigKeys) -> Fields:
    core = rotary_fields(core_fields(keys, positions=65536, act="xielu"))
    return {**core, **bias_fields(keys), "qk_norm": "head"}


_LAYOUT = Layout(inner=("up_proj",))
FAMILIES = {
    "nemotron": Family(read=_nemotron, layout=_LAYOUT, norm="layer_norm_1p", rotary="phi3"),
    "arcee": Family(read=_arcee, layout=_LAYOUT),
    "jais2": Family(read=_jais2, layout=_LAYOUT, norm="layer_norm"),
    "apertus": Family(read=_apertus, layout=_LAYOUT._replace(norms=("attention_layernorm", "feedforward_layernorm"))),
}
