"""Hunyuan: Llama with norms of queries and keys after the rotation."""

from __future__ import annotations

from peftbench.inputs.model.config_keys import ConfigKeys
from peftbench.inputs.model.family import Family, Layout
from peftbench.inputs.model.field_groups import Fields, bias_fields, core_fields, rotary_fields


def _hunyuan(keys: ConfigKeys) -> Fields:
    core = rotary_fields(core_fields(keys, positions=2048))
    return {**core, **bias_fields(keys), "qk_norm": "head"}


FAMILIES = {
    "hunyuan_v1_dense": Family(
        read=_hunyuan, layout=Layout(qk_norms=("query_layernorm", "key_layernorm")), norms_rotated=True, liger=True
    ),
}
