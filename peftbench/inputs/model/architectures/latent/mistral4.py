"""Mistral 4: DeepSeek's layers, whose router computes in the stream's type and whose queries are scaled by position."""

from __future__ import annotations

from peftbench.inputs.model.architectures.latent.deepseek_v3 import FAMILIES as DEEPSEEK
from peftbench.inputs.model.architectures.latent.fields import latent_fields, with_experts
from peftbench.inputs.model.config_keys import ConfigKeys
from peftbench.inputs.model.family import Router
from peftbench.inputs.model.field_groups import Fields, expert_fields
from peftbench.inputs.model.parts import LatentAttention

_SIZES = LatentAttention(32, query_rank=1024, latent=256, plain_dim=64, rotary_dim=64, value_dim=128)


def _mistral4(keys: ConfigKeys) -> Fields:
    core, attention = latent_fields(keys, 1_048_576, 12288, _SIZES)
    experts = expert_fields(keys, keys.whole("moe_intermediate_size", 2048), 128, 4)
    dense = range(keys.whole("first_k_dense_replace", 0, low=0))
    return with_experts(core, attention, experts, keys.whole("n_shared_experts", 1), dense)


FAMILIES = {
    "mistral4": DEEPSEEK["deepseek_v3"]._replace(
        read=_mistral4,
        router=Router("narrow_softmax", narrows=False),
        scales=frozenset(("rotated_query",)),
        expert_targets={},
    ),
}
