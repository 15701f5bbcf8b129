"""OLMoE and FlexOlmo: Llama or OLMo 2 with experts in every layer."""

from __future__ import annotations

from peftbench.inputs.model.config_keys import ConfigKeys
from peftbench.inputs.model.family import GEMMA2_NORMS, QWEN2_MOE_EXPERTS, Family, Layout, SplitExperts
from peftbench.inputs.model.field_groups import Fields, bias_fields, core_fields, expert_fields, rotary_fields


def _olmoe(keys: ConfigKeys) -> Fields:
    """norm_topk_prob divides a few numbers a token in place; clip_qkv, null in every checkpoint, is not modelled."""
    clip = keys.value("clip_qkv")
    if clip is not None:
        raise keys.refuse("clip_qkv", clip, "null")
    core = rotary_fields(core_fields(keys, positions=4096))
    return {**core, **bias_fields(keys), "qk_norm": "full", **expert_fields(keys, core["intermediate_size"], 64, 8)}


def _flex_olmo(keys: ConfigKeys) -> Fields:
    core = rotary_fields(core_fields(keys, positions=4096))
    experts = expert_fields(keys, core["intermediate_size"], 7, 5)
    return {**core, **bias_fields(keys), **experts, "qk_norm": "full", "norm_before": False}


_OLMOE = Family(
    read=_olmoe,
    spelled={"num_experts": ("num_experts", "num_local_experts")},
    layout=Layout(router="mlp.gate"),
    split_experts=SplitExperts(),
    expert_targets=QWEN2_MOE_EXPERTS,
)
FAMILIES = {
    "olmoe": _OLMOE,
    "flex_olmo": _OLMOE._replace(
        read=_flex_olmo,
        layout=Layout(router="mlp.gate", norms=GEMMA2_NORMS[1::2]),
        norm="olmo2",
        rotary="olmo2",
    ),
}
