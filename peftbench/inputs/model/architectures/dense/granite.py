"""Granite: Llama whose embedding, residual and logits are multiplied by numbers."""

from __future__ import annotations

from peftbench.inputs.model.config_keys import ConfigKeys
from peftbench.inputs.model.family import Family
from peftbench.inputs.model.field_groups import Fields, bias_fields, core_fields, rotary_fields


def _granite(keys: ConfigKeys) -> Fields:
    core = rotary_fields(core_fields(keys, positions=2048))
    return {**core, **bias_fields(keys), "mlp_bias": keys.flag("mlp_bias", False)}


FAMILIES = {"granite": Family(read=_granite, scales=frozenset(("embedding", "residual", "logits")))}
"""Liger patches it, but its loss cannot: it would have to scale the logits."""
