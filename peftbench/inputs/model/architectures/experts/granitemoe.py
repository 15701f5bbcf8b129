"""Granite's mixtures of experts: Granite's scales, a softmax over the chosen experts alone, maybe a shared network."""

from __future__ import annotations

from peftbench.inputs.model.config_keys import ConfigKeys
from peftbench.inputs.model.family import Family, Layout, Router
from peftbench.inputs.model.field_groups import Fields, bias_fields, core_fields, expert_fields, rotary_fields


def _granitemoe(keys: ConfigKeys) -> Fields:
    core = rotary_fields(core_fields(keys, positions=2048))
    return {**core, **bias_fields(keys), **expert_fields(keys, core["intermediate_size"], 8, 2)}


def _granitemoeshared(keys: ConfigKeys) -> Fields:
    return {**_granitemoe(keys), "shared_intermediate_size": keys.whole("shared_intermediate_size", 0, low=0)}


_LAYOUT = Layout(
    router="block_sparse_moe.router", experts="block_sparse_moe.experts", shared="shared_mlp.",
    inner=("input_linear",), fused_gate=True, down="output_linear",
)  # fmt: skip
_GRANITE = Family(
    read=_granitemoe,
    spelled={"num_experts": ("num_local_experts", "num_experts")},
    layout=_LAYOUT,
    scales=frozenset(("embedding", "residual", "logits")),
    router=Router("softmax_of_chosen"),
)
FAMILIES = {"granitemoe": _GRANITE, "granitemoeshared": _GRANITE._replace(read=_granitemoeshared)}
