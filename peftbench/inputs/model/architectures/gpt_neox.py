"""GPT-NeoX and Pythia: fused projections, partly rotated heads, attention and MLP in parallel behind two norms."""

from __future__ import annotations

from peftbench.inputs.model.config_keys import ConfigKeys
from peftbench.inputs.model.family import Family, Layout, Targets
from peftbench.inputs.model.field_groups import Fields, bias_fields, core_fields, rotary_factor, rotary_fields


def _gpt_neox(keys: ConfigKeys) -> Fields:
    core = core_fields(keys, positions=2048, act="gelu", head_dim_key=False)
    dropout = keys.real("hidden_dropout", 0.0)
    return {
        **rotary_fields(core, rotary_factor(keys, 0.25, "rotary_pct")),
        **bias_fields(keys, True),
        "mlp_bias": True,
        "residual_dropout": dropout,
        "embedding_dropout": dropout,
        "parallel_attention": keys.flag("use_parallel_residual", True),
    }


_FUSED = ("query_key_value",)
FAMILIES = {
    "gpt_neox": Family(
        read=_gpt_neox,
        spelled={"num_key_value_heads": ()},
        layout=Layout(
            layers="gpt_neox.layers", embedding="embed_in", attention="attention.", qkv=_FUSED, output="dense",
            inner=("dense_h_to_4h",), down="dense_4h_to_h", final_norm="final_layer_norm",
        ),
        form="gpt_neox",
        norm="layer_norm",
        upcasts_logits_before_5=False,
        targets=Targets(
            lora=_FUSED, vera=_FUSED, fourierft=_FUSED, adalora=_FUSED, ia3=(*_FUSED, "dense_4h_to_h"),
            ia3_feedforward=("dense_4h_to_h",), osf=(*_FUSED, "dense_4h_to_h"),
        ),
    )
}  # fmt: skip
