"""Phi, with attention and MLP in parallel behind one LayerNorm; Phi-3 and Phi-4, Llama with fused projections."""

from __future__ import annotations

from peftbench.inputs.model.config_keys import ConfigKeys
from peftbench.inputs.model.family import LLAMA_TARGETS, Family, Layout
from peftbench.inputs.model.field_groups import (
    Fields,
    core_fields,
    dropout_fields,
    every_layer,
    rotary_factor,
    rotary_fields,
    window_fields,
)


def _phi(keys: ConfigKeys) -> Fields:
    core = rotary_fields(core_fields(keys, positions=2048, act="gelu_new"), rotary_factor(keys, 0.5))
    biases = dict.fromkeys(("qkv_bias", "attention_output_bias", "mlp_bias", "lm_head_bias"), True)
    norms = {"norms_per_layer": 1, "qk_norm": "head" if keys.flag("qk_layernorm", False) else "none"}
    return {**core, **biases, **norms, **dropout_fields(keys, 0.0), "parallel_attention": True}


def _phi3(keys: ConfigKeys) -> Fields:
    core = rotary_fields(core_fields(keys, positions=4096), rotary_factor(keys, 1.0))
    dropout = {"residual_dropout": keys.real("resid_pdrop", 0.0)}  # embd_pdrop exists but is never applied
    return {**core, **dropout, **window_fields(keys, every_layer(core), None)}


_MATRICES = ("q_proj", "v_proj", "fc1", "fc2")
FAMILIES = {
    "phi": Family(
        read=_phi,
        layout=Layout(
            output="dense", inner=("fc1",), down="fc2", norms=("input_layernorm",),
            qk_norms=("q_layernorm", "k_layernorm"), final_norm="final_layernorm",
        ),
        norm="layer_norm",
        targets=LLAMA_TARGETS._replace(
            lora=_MATRICES, fourierft=_MATRICES, adalora=(), ia3=("q_proj", "v_proj", "fc2"),
            ia3_feedforward=("fc2",), ln_tuning=("input_layernorm", "final_layernorm"),
        ),
    ),
    "phi3": Family(
        read=_phi3,
        layout=Layout(
            qkv=("qkv_proj",), inner=("gate_up_proj",), fused_gate=True, made=("o_proj", "qkv_proj")
        ),
        rotary="phi3",
        slices_qkv=True,
        liger=True,
    ),
}  # fmt: skip
