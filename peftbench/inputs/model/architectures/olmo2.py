"""OLMo 2: norms after attention and MLP only, and over all heads; OLMo 3 has windows, OLMo norms without weights."""

from __future__ import annotations

from peftbench.inputs.model.config_keys import ConfigKeys
from peftbench.inputs.model.family import GEMMA2_NORMS, Family, Layout
from peftbench.inputs.model.field_groups import (
    Fields,
    bias_fields,
    core_fields,
    rotary_fields,
    sliding_layers,
    window_fields,
)


def _olmo2(keys: ConfigKeys) -> Fields:
    core = rotary_fields(core_fields(keys, positions=2048))
    return {**core, **bias_fields(keys), "qk_norm": "full", "norm_before": False}


def _olmo3(keys: ConfigKeys) -> Fields:
    fields = _olmo2(keys)
    sliding = sliding_layers(keys, fields["num_hidden_layers"], lambda i: (i + 1) % 4 != 0)
    return {**fields, **window_fields(keys, sliding, 4096)}


def _olmo(keys: ConfigKeys) -> Fields:
    core = rotary_fields(core_fields(keys, positions=2048))
    return {**core, **bias_fields(keys), "clips_qkv": keys.value("clip_qkv") is not None}


_OLMO2 = Family(read=_olmo2, layout=Layout(norms=GEMMA2_NORMS[1::2]), norm="olmo2", rotary="olmo2", liger=True)
FAMILIES = {
    "olmo2": _OLMO2,
    "olmo": Family(read=_olmo, norm="unweighted", rotary="olmo2"),
    "olmo3": _OLMO2._replace(read=_olmo3),
}
