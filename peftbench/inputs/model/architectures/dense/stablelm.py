"""StableLM: LayerNorm, a quarter of each head rotated; the 12B has attention and MLP in parallel and norms of heads."""

from __future__ import annotations

from peftbench.inputs.model.config_keys import ConfigKeys
from peftbench.inputs.model.family import LLAMA_TARGETS, Family, Layout, Targets
from peftbench.inputs.model.field_groups import Fields, core_fields, rotary_factor, rotary_fields


def _stablelm(keys: ConfigKeys) -> Fields:
    core = core_fields(keys, positions=4096, key_value_heads=32, head_dim_key=False)
    parallel = keys.flag("use_parallel_residual", False)
    return {
        **rotary_fields(core, rotary_factor(keys, 0.25)),
        "qkv_bias": keys.flag("use_qkv_bias", False),
        "qk_norm": "each" if keys.flag("qk_layernorm", False) else "none",
        "residual_dropout": keys.real("hidden_dropout", 0.0),
        "parallel_attention": parallel,
        "norms_per_layer": 1 if parallel else 2,
    }


_QV = LLAMA_TARGETS.lora
FAMILIES = {
    "stablelm": Family(
        read=_stablelm,
        layout=Layout(
            parallel_norms={1: ("input_layernorm",)}, qk_norms=("q_layernorm", "k_layernorm"), qk_norm_list="norms"
        ),
        form="falcon",
        norm="layer_norm",
        rotary="phi3",
        drops_attention=False,
        targets=Targets(lora=_QV, vera=_QV, fourierft=_QV),
    ),
}
