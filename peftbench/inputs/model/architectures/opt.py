"""OPT: two spare rows of positions, and for OPT-350m post-norm and a narrower embedding."""

from __future__ import annotations

from peftbench.inputs.model.config_keys import ConfigKeys
from peftbench.inputs.model.family import LLAMA_TARGETS, Family, Layout
from peftbench.inputs.model.field_groups import Fields, core_fields


def _opt(keys: ConfigKeys) -> Fields:
    if not keys.flag("layer_norm_elementwise_affine", True):
        raise keys.refuse("layer_norm_elementwise_affine", False, "true")
    core = core_fields(keys, positions=2048, tied=True, act="relu", head_dim_key=False)
    before = keys.flag("do_layer_norm_before", True)
    bias = keys.flag("enable_bias", True)
    return {
        **core,
        **dict.fromkeys(("qkv_bias", "attention_output_bias", "mlp_bias"), bias),
        "embedding_size": keys.whole("word_embed_proj_dim", core["hidden_size"]),
        "learned_positions": core["max_position_embeddings"] + 2,
        "residual_dropout": keys.real("dropout", 0.1),
        "norm_before": before,
        "final_norm": before and not keys.flag("_remove_final_layer_norm", False),
    }


_LINEAR = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
FAMILIES = {
    "opt": Family(
        read=_opt,
        spelled={
            "intermediate_size": ("ffn_dim",),
            "hidden_act": ("activation_function",),
            "num_key_value_heads": (),
        },
        layout=Layout(
            layers="model.decoder.layers", positions="embed_positions", output="out_proj", mlp="", inner=("fc1",),
            down="fc2", norms=("self_attn_layer_norm", "final_layer_norm"), final_norm="final_layer_norm",
            made=("project_out", "project_in", "k_proj", "v_proj", "q_proj"),
        ),
        form="opt",
        norm="layer_norm",
        scales_query=True,
        positions_by_sequence=True,
        upcasts_logits_before_5=False,
        targets=LLAMA_TARGETS._replace(
            adalora=_LINEAR, ia3=("q_proj", "k_proj", "fc2"), ia3_feedforward=("fc2",), osf=_LINEAR, ln_tuning=()
        ),
    )
}  # fmt: skip
