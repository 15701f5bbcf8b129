"""OLMoE: Llama with norms over all heads of queries and keys, and experts in every layer."""

from __future__ import annotations

from peftbench.inputs.model.config_keys import ConfigKeys
from peftbench.inputs.model.family import QWEN2_MOE_EXPERTS, Family, Layout, SplitExperts
from peftbench.inputs.model.field_groups import Fields, bias_fields, core_fields, expert_fields, rotary_fields


def _olmoe(keys: ConfigKeys) -> Fields:
    """norm_topk_prob divides a few numbers a token in place; clip_qkv, null in every checkpoint, is not modelled."""
    clip = keys.value("clip_qkv")
    if clip is not None:
        raise keys.refuse("clip_qkv", clip, "null")
    core = rotary_fields(core_fields(keys, positions=4096))
    return {**core, **bias_fields(keys), "qk_norm": "full", **expert_fields(keys, core["intermediate_size"], 64, 8)}


FAMILIES = {
    "olmoe": Family(
        read=_olmoe,
        spelled={"num_experts": ("num_experts", "num_local_experts")},
        layout=Layout(router="mlp.gate"),
        split_experts=SplitExperts(),
        expert_targets=QWEN2_MOE_EXPERTS,
    )
}
