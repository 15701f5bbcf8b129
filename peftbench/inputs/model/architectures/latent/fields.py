"""Fields that families with latent attention read alike."""

from __future__ import annotations

from collections.abc import Iterable

from peftbench.inputs.model.config_keys import ConfigKeys
from peftbench.inputs.model.field_groups import Fields, bias_fields, core_fields
from peftbench.inputs.model.parts import Experts, FeedForward, LatentAttention, Layer, Mlp

DEEPSEEK_V3 = LatentAttention(128, query_rank=1536, latent=512, plain_dim=128, rotary_dim=64, value_dim=128)
"""The sizes that DeepSeek V2's and V3's configurations leave out."""


def latent_fields(
    keys: ConfigKeys, positions: int, inner: int, default: LatentAttention = DEEPSEEK_V3, *, tied: bool = False
) -> tuple[Fields, LatentAttention]:
    """All fields but the layers, and their attention."""
    core = core_fields(keys, positions, tied=tied, inner=inner, head_dim_key=False, head_dim=1)
    part = _attention(keys, core["num_attention_heads"], default)
    return {**core, **bias_fields(keys), "head_dim": part.head_dim, "rotary_dim": part.rotary_dim}, part


def _attention(keys: ConfigKeys, heads: int, default: LatentAttention) -> LatentAttention:
    """A rank of queries that is null means one matrix."""
    rank = keys.optional_whole("q_lora_rank")
    return LatentAttention(
        heads,
        query_rank=rank or (0 if keys.has("q_lora_rank") else default.query_rank),
        latent=keys.whole("kv_lora_rank", default.latent),
        plain_dim=keys.whole("qk_nope_head_dim", default.plain_dim),
        rotary_dim=keys.whole("qk_rope_head_dim", default.rotary_dim),
        value_dim=keys.whole("v_head_dim", default.value_dim),
        rotation=default.rotation if keys.flag("rope_interleave", True) else "halves",
    )


def layered(core: Fields, part: LatentAttention, networks: list[FeedForward]) -> Fields:
    """With this attention in every layer."""
    return {**core, "own_layers": tuple(Layer(part, network) for network in networks)}


def with_experts(core: Fields, part: LatentAttention, experts: Fields, shared: int, dense: Iterable[int]) -> Fields:
    """With experts, and so many shared ones as one network, in every layer but these."""
    inner = experts["moe_intermediate_size"]
    mixture = Experts(experts["num_experts"], experts["num_experts_per_tok"], inner, inner * shared)
    layers = range(core["num_hidden_layers"])
    dense = tuple(sorted(set(dense) & set(layers)))
    networks = [Mlp(core["intermediate_size"]) if number in dense else mixture for number in layers]
    fields = {**core, **experts, "shared_intermediate_size": mixture.shared, "dense_layers": dense}
    return layered(fields, part, networks)
