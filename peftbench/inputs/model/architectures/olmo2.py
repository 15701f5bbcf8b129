"""OLMo 2: norms after attention and MLP only, and over all heads of queries and keys."""

from __future__ import annotations

from peftbench.inputs.model.config_keys import ConfigKeys
from peftbench.inputs.model.family import GEMMA2_NORMS, Family, Layout
from peftbench.inputs.model.field_groups import Fields, bias_fields, core_fields, rotary_fields


def _olmo2(keys: ConfigKeys) -> Fields:
    core = rotary_fields(core_fields(keys, positions=2048))
    return {**core, **bias_fields(keys), "qk_norm": "full", "norm_before": False}


FAMILIES = {
    "olmo2": Family(
        read=_olmo2, layout=Layout(norms=GEMMA2_NORMS[1::2]), norm="olmo2", rotary="olmo2", liger=True
    ),
}
