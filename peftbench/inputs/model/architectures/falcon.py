"""Falcon: linear layers of its own class, shared key heads in a fused projection, rotary positions or ALiBi."""

from __future__ import annotations

from peftbench.inputs.model.config_keys import ConfigKeys
from peftbench.inputs.model.family import Family, Layout, Targets
from peftbench.inputs.model.field_groups import Fields, core_fields, rotary_fields


def _falcon(keys: ConfigKeys) -> Fields:
    inner = 4 * keys.whole("hidden_size")
    core = core_fields(keys, positions=2048, tied=True, act="gelu", inner=inner, head_dim_key=False)
    alibi, parallel = keys.flag("alibi", False), keys.flag("parallel_attn", True)
    new = keys.flag("new_decoder_architecture", False)
    if not new:  # num_kv_heads is only read by the new architecture
        core["num_key_value_heads"] = 1 if keys.flag("multi_query", True) else core["num_attention_heads"]
    norms = _norms(keys, parallel, new)
    bias = dict.fromkeys(("qkv_bias", "attention_output_bias", "mlp_bias"), keys.flag("bias", False))
    return {
        **rotary_fields(core, 0.0 if alibi else 1.0),
        **bias,
        "alibi": alibi,
        "parallel_attention": parallel,
        "norms_per_layer": norms,
        "residual_dropout": keys.real("hidden_dropout", 0.0),
    }


def _norms(keys: ConfigKeys, parallel: bool, new: bool) -> int:
    """Norms of a layer; combinations whose forward pass fails in transformers are refused."""
    if not parallel:
        if new:
            raise keys.refuse("parallel_attn", False, "true with new_decoder_architecture")
        return 2
    norms = keys.whole("num_ln_in_parallel_attn", 2 if new else 1)
    if norms > (2 if new else 1):
        raise keys.refuse("num_ln_in_parallel_attn", norms, "1, or 2 with new_decoder_architecture")
    return norms


_FUSED = ("query_key_value",)
FAMILIES = {
    "falcon": Family(
        read=_falcon,
        spelled={
            "hidden_size": ("n_embed", "hidden_size"),
            "intermediate_size": ("ffn_hidden_size",),
            "hidden_act": ("activation",),
            "num_key_value_heads": ("num_kv_heads",),
        },
        layout=Layout(
            layers="transformer.h", embedding="word_embeddings", attention="self_attention.", qkv=_FUSED,
            output="dense", inner=("dense_h_to_4h",), down="dense_4h_to_h", final_norm="ln_f", plain_linear=False,
            parallel_norms={1: ("input_layernorm",), 2: ("ln_attn", "ln_mlp")},
        ),
        form="falcon",
        norm="layer_norm",
        slices_qkv=True,
        copies_key_heads=True,
        float32_softmax=False,
        always_masked=True,
        upcasts_logits_before_5=False,
        targets=Targets(
            lora=_FUSED, vera=_FUSED, fourierft=_FUSED, ia3=(*_FUSED, "dense_4h_to_h"),
            ia3_feedforward=("dense_4h_to_h",), osf=(*_FUSED, "dense_4h_to_h"),
            ln_tuning=("input_layernorm", "post_attention_layernorm", "ln_f"),
        ),
        prefix_spans_hidden=True,
    )
}  # fmt: skip
