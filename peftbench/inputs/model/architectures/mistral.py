"""Mistral, with a window over every layer, Ministral, with one over some, and Mixtral, with experts."""

from __future__ import annotations

from peftbench.inputs.model.config_keys import ConfigKeys
from peftbench.inputs.model.family import LLAMA_TARGETS, Family, Layout, SplitExperts
from peftbench.inputs.model.field_groups import (
    Fields,
    core_fields,
    every_layer,
    expert_fields,
    rotary_fields,
    sliding_layers,
    window_fields,
)


def _mistral(keys: ConfigKeys) -> Fields:
    core = rotary_fields(core_fields(keys, positions=131072, key_value_heads=8))
    return {**core, **window_fields(keys, every_layer(core), 4096)}


def _ministral(keys: ConfigKeys) -> Fields:
    core = rotary_fields(core_fields(keys, positions=131072, key_value_heads=8))
    sliding = sliding_layers(keys, core["num_hidden_layers"], lambda i: True)
    return {**core, **window_fields(keys, sliding, 4096)}


def _ministral3(keys: ConfigKeys) -> Fields:
    core = rotary_fields(core_fields(keys, positions=262_144, key_value_heads=8, head_dim=128))
    return {**core, **window_fields(keys, every_layer(core), None)}


def _mixtral(keys: ConfigKeys) -> Fields:
    core = rotary_fields(core_fields(keys, positions=131072, key_value_heads=8))
    experts = expert_fields(keys, core["intermediate_size"], 8, 2)
    return {**core, **window_fields(keys, every_layer(core), None), **experts}


_TARGETS = LLAMA_TARGETS._replace(adalora=())
FAMILIES = {
    "mistral": Family(read=_mistral, repeats_keys_before_4_48=True, liger=True, targets=_TARGETS, adaption_prompt=True),
    "ministral": Family(read=_ministral, liger=True),
    "ministral3": Family(read=_ministral3, scales=frozenset(("rotated_query",))),
    "mixtral": Family(
        read=_mixtral,
        spelled={"num_experts": ("num_local_experts", "num_experts")},
        layout=Layout(router="mlp.gate"),
        repeats_keys_before_4_48=True,
        liger=True,
        targets=_TARGETS._replace(ia3=("k_proj", "v_proj", "w2"), ia3_feedforward=("w2",), ln_tuning=()),
        split_experts=SplitExperts("block_sparse_moe.", ("w1", "w3"), "w2", "block_sparse_moe.gate"),
        expert_targets={"gate": "gate", "w1": "gate_up_proj", "w3": "gate_up_proj", "w2": "down_proj"},
    ),
}
