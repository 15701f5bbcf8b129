"""Granite and HyperCLOVA X: Llama whose embedding, residual and logits are multiplied by numbers."""

from __future__ import annotations

from peftbench.inputs.model.config_keys import ConfigKeys
from peftbench.inputs.model.family import Family, Layout
from peftbench.inputs.model.field_groups import Fields, bias_fields, core_fields, rotary_fields


def _granite(keys: ConfigKeys) -> Fields:
    core = rotary_fields(core_fields(keys, positions=2048))
    return {**core, **bias_fields(keys), "mlp_bias": keys.flag("mlp_bias", False)}


def _hyperclovax(keys: ConfigKeys) -> Fields:
    if not keys.flag("use_post_norm", True):
        raise keys.refuse("use_post_norm", False, "true")
    return {**_granite(keys), "norms_per_layer": 4}


_GRANITE = Family(read=_granite, scales=frozenset(("embedding", "residual", "logits")))
"""Liger patches it, but its loss cannot: it would have to scale the logits."""
_NORMS = ("input_layernorm", "post_norm1", "post_attention_layernorm", "post_norm2")
FAMILIES = {
    "granite": _GRANITE,
    "hyperclovax": _GRANITE._replace(read=_hyperclovax, layout=Layout(norms=_NORMS)),
}
