"""Youtu-LLM: latent attention beside MLPs, without experts."""

from __future__ import annotations

from peftbench.inputs.model.architectures.latent.fields import latent_fields, layered
from peftbench.inputs.model.config_keys import ConfigKeys
from peftbench.inputs.model.family import Family
from peftbench.inputs.model.field_groups import Fields
from peftbench.inputs.model.parts import Mlp


def _youtu(keys: ConfigKeys) -> Fields:
    core, attention = latent_fields(keys, positions=131072, inner=6144, tied=True)
    return layered(core, attention, [Mlp(core["intermediate_size"])] * core["num_hidden_layers"])


FAMILIES = {"youtu": Family(read=_youtu)}
