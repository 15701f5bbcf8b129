"""Command R and Aya: attention and MLP in parallel behind one LayerNorm without bias; from Command R7B with windows."""

from __future__ import annotations

from peftbench.inputs.model.config_keys import ConfigKeys
from peftbench.inputs.model.family import Family, Layout
from peftbench.inputs.model.field_groups import (
    Fields,
    bias_fields,
    core_fields,
    every_layer,
    rotary_fields,
    sliding_layers,
    window_fields,
)


def _core(keys: ConfigKeys, head_dim_key: bool) -> Fields:
    core = core_fields(keys, positions=8192, tied=True, head_dim_key=head_dim_key)
    return {**rotary_fields(core), **bias_fields(keys), "norms_per_layer": 1, "parallel_attention": True}


def _cohere(keys: ConfigKeys) -> Fields:
    return {**_core(keys, head_dim_key=True), "qk_norm": "each" if keys.flag("use_qk_norm", False) else "none"}


def _cohere2(keys: ConfigKeys) -> Fields:
    """Layers without a window skip the rotation."""
    core = _core(keys, head_dim_key=False)
    pattern = keys.whole("sliding_window_pattern", 4)
    slides = sliding_layers(keys, core["num_hidden_layers"], lambda i: (i + 1) % pattern != 0)
    window = window_fields(keys, slides, 4096)
    without = tuple(i for i in every_layer(core) if not window or i not in slides)
    return {**core, **window, "layers_without_rope": without}


_COHERE = Family(
    read=_cohere,
    layout=Layout(norms=("input_layernorm",)),
    norm="centered",
    rotary="float32",
    scales=frozenset(("logits",)),
)
FAMILIES = {"cohere": _COHERE, "cohere2": _COHERE._replace(read=_cohere2)}
