"""The language models of Qwen3.5-MoE and Qwen3-Next: the mixers of Qwen3.5 and the experts of Qwen2-MoE."""

from __future__ import annotations

from peftbench.inputs.model.architectures.delta.qwen3_5_text import LAYOUT, gated_fields, mixers
from peftbench.inputs.model.architectures.qwen2 import sparse_layers
from peftbench.inputs.model.config_keys import ConfigKeys
from peftbench.inputs.model.family import QWEN2_MOE_EXPERTS, DeltaNames, Family, Router, SplitExperts
from peftbench.inputs.model.field_groups import Fields, expert_fields
from peftbench.inputs.model.parts import Experts, Layer, Mlp


def _mixture(keys: ConfigKeys, number: int, per_token: int) -> Fields:
    shared = keys.whole("shared_expert_intermediate_size", 512)
    experts = expert_fields(keys, keys.whole("moe_intermediate_size", 512), number, per_token)
    return {**experts, "shared_intermediate_size": shared}


def _experts(fields: Fields) -> Experts:
    names = ("num_experts", "num_experts_per_tok", "moe_intermediate_size", "shared_intermediate_size")
    return Experts(*(fields[name] for name in names))


def _qwen3_5_moe(keys: ConfigKeys) -> Fields:
    """Every layer has experts; the class has no width of a plain MLP."""
    mixture = _mixture(keys, 256, 8)
    fields = {**gated_fields(keys, key_value_heads=2, inner=mixture["moe_intermediate_size"]), **mixture}
    experts = _experts(fields)
    return {**fields, "own_layers": tuple(Layer(mixer, experts) for mixer in mixers(keys, fields))}


def _qwen3_next(keys: ConfigKeys) -> Fields:
    """Experts where mlp_only_layers and decoder_sparse_step leave them."""
    fields = {**gated_fields(keys, key_value_heads=2, inner=5632), **_mixture(keys, 512, 10)}
    fields |= sparse_layers(keys, fields)
    experts, network, dense = _experts(fields), Mlp(fields["intermediate_size"]), fields["dense_layers"]
    layers = (Layer(mixer, network if i in dense else experts) for i, mixer in enumerate(mixers(keys, fields)))
    return {**fields, "own_layers": tuple(layers)}


_LAYOUT = LAYOUT._replace(router="mlp.gate", shared="mlp.shared_expert.", shared_gate="mlp.shared_expert_gate")
_FUSED = DeltaNames(qkv=("in_proj_qkvz",), gate="", rates=("in_proj_ba",))
FAMILIES = {
    "qwen3_5_moe_text": Family(read=_qwen3_5_moe, norm="gemma", layout=_LAYOUT, router=Router(shared_first=True)),
    "qwen3_next": Family(
        read=_qwen3_next,
        norm="gemma",
        layout=_LAYOUT._replace(delta=_FUSED, made=()),
        router=Router(shared_first=True),
        split_experts=SplitExperts(),
        expert_targets=QWEN2_MOE_EXPERTS,
    ),
}
