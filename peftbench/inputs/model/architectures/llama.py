"""Llama, the family that all defaults describe, and others whose class in transformers is Llama's."""

from __future__ import annotations

from peftbench.inputs.model.config_keys import ConfigKeys
from peftbench.inputs.model.family import LLAMA_TARGETS, Family
from peftbench.inputs.model.field_groups import Fields, bias_fields, core_fields, rotary_fields


def _llama(keys: ConfigKeys) -> Fields:
    return _with_biases(keys, core_fields(keys, positions=2048))


def _internlm3(keys: ConfigKeys) -> Fields:
    return _with_biases(keys, core_fields(keys, positions=32768, key_value_heads=2, head_dim=128))


def _iquestcoder(keys: ConfigKeys) -> Fields:
    return _with_biases(keys, core_fields(keys, positions=131072, key_value_heads=8, head_dim=128))


def _with_biases(keys: ConfigKeys, core: Fields) -> Fields:
    return {**rotary_fields(core), **bias_fields(keys), "mlp_bias": keys.flag("mlp_bias", False)}


FAMILIES = {
    "llama": Family(read=_llama, liger=True, targets=LLAMA_TARGETS, adaption_prompt=True),
    "internlm3": Family(
        read=_internlm3, spelled={"attention_bias": ("attention_bias", "qkv_bias"), "mlp_bias": ("mlp_bias", "bias")}
    ),
    "iquestcoder": Family(read=_iquestcoder),
}
