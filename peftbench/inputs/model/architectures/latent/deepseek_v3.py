"""DeepSeek V3 (as which Moonlight and Kimi K2 are built) and V2, and GLM 4.7 Flash: latent attention, then experts."""

from __future__ import annotations

from peftbench.inputs.model.architectures.latent.fields import DEEPSEEK_V3, latent_fields, with_experts
from peftbench.inputs.model.config_keys import ConfigKeys
from peftbench.inputs.model.family import QWEN2_MOE_EXPERTS, Family, Layout, Router
from peftbench.inputs.model.field_groups import Fields, expert_fields
from peftbench.inputs.model.parts import LatentAttention

_GLM4_MOE_LITE = LatentAttention(20, query_rank=768, latent=512, plain_dim=192, rotary_dim=64, value_dim=256)


def _deepseek_v3(keys: ConfigKeys) -> Fields:
    core, attention = latent_fields(keys, positions=4096, inner=18432)
    experts = expert_fields(keys, keys.whole("moe_intermediate_size", 2048), 256, 8)
    dense = range(keys.whole("first_k_dense_replace", 3, low=0))
    return with_experts(core, attention, experts, keys.whole("n_shared_experts", 1), dense)


def _deepseek_v2(keys: ConfigKeys) -> Fields:
    """The class has no default for the experts of a token; those that are not shared have no biases."""
    core, attention = latent_fields(keys, 2048, 11008, DEEPSEEK_V3._replace(rotation="complex"))
    core["mlp_bias"] = keys.flag("mlp_bias", False)
    experts = expert_fields(keys, keys.whole("moe_intermediate_size", 1407), 64, keys.whole("num_experts_per_tok"))
    dense = range(keys.whole("first_k_dense_replace", 0, low=0))
    return with_experts(core, attention, experts, keys.whole("n_shared_experts", 2), dense)


def _glm4_moe_lite(keys: ConfigKeys) -> Fields:
    """Only the first layer is dense, unless mlp_layer_types says otherwise."""
    core, attention = latent_fields(keys, 202752, 10240, _GLM4_MOE_LITE)
    experts = expert_fields(keys, keys.whole("moe_intermediate_size", 1536), 64, 4)
    types = keys.layer_types(core["num_hidden_layers"], "mlp_layer_types") or ("dense",)
    dense = (number for number, kind in enumerate(types) if kind != "sparse")
    return with_experts(core, attention, experts, keys.whole("n_shared_experts", 1), dense)


_DEEPSEEK_V3 = Family(
    read=_deepseek_v3,
    spelled={"num_experts": ("n_routed_experts", "num_local_experts")},
    layout=Layout(router="mlp.gate"),
    router=Router("sigmoid", float32="gate", narrows=False),
    expert_targets=QWEN2_MOE_EXPERTS,
)
FAMILIES = {
    "deepseek_v3": _DEEPSEEK_V3,
    "deepseek_v2": _DEEPSEEK_V3._replace(
        read=_deepseek_v2,
        spelled={"num_experts": ("n_routed_experts", "num_experts")},
        router=Router(float32="gate", narrows=False),
    ),
    "glm4_moe_lite": _DEEPSEEK_V3._replace(read=_glm4_moe_lite),
}
