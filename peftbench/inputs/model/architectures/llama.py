"""Llama: the family that all defaults describe."""

from __future__ import annotations

from peftbench.inputs.model.config_keys import ConfigKeys
from peftbench.inputs.model.family import LLAMA_TARGETS, Family
from peftbench.inputs.model.field_groups import Fields, bias_fields, core_fields, rotary_fields


def _llama(keys: ConfigKeys) -> Fields:
    core = rotary_fields(core_fields(keys, positions=2048))
    return {**core, **bias_fields(keys), "mlp_bias": keys.flag("mlp_bias", False)}


FAMILIES = {"llama": Family(read=_llama, liger=True, targets=LLAMA_TARGETS, adaption_prompt=True)}
