"""GPT-2 and GPTBigCode (StarCoder): learned positions, biases everywhere, fused projections."""

from __future__ import annotations

from peftbench.inputs.model.config_keys import ConfigKeys
from peftbench.inputs.model.family import Family, Layout, Targets
from peftbench.inputs.model.field_groups import Fields, core_fields, dropout_fields


def _gpt2(keys: ConfigKeys) -> Fields:
    return _core(keys, "gelu_new", kv=None)


def _gpt_bigcode(keys: ConfigKeys) -> Fields:
    return _core(keys, "gelu_pytorch_tanh", kv=1 if keys.flag("multi_query", True) else None)


def _core(keys: ConfigKeys, act: str, kv: int | None) -> Fields:
    """Dropout is 0.1 unless the config says otherwise."""
    if keys.flag("add_cross_attention", False):
        raise keys.refuse("add_cross_attention", True, "false")
    inner = 4 * keys.whole("hidden_size")
    core = core_fields(keys, positions=1024, tied=True, act=act, inner=inner, head_dim_key=False, dropout=0.1)
    biases = dict.fromkeys(("qkv_bias", "attention_output_bias", "mlp_bias"), True)
    return {
        **core,
        **biases,
        **dropout_fields(keys, 0.1),
        "num_key_value_heads": kv or core["num_attention_heads"],
        "learned_positions": core["max_position_embeddings"],
    }


_LAYOUT = Layout(
    layers="transformer.h", embedding="wte", positions="wpe", attention="attn.", qkv=("c_attn",), output="c_proj",
    inner=("c_fc",), down="c_proj", norms=("ln_1", "ln_2"), final_norm="ln_f",
)  # fmt: skip
_BIGCODE = Family(
    read=_gpt_bigcode,
    spelled={
        "hidden_size": ("n_embd", "hidden_size"),
        "num_hidden_layers": ("n_layer", "num_hidden_layers"),
        "num_attention_heads": ("n_head", "num_attention_heads"),
        "max_position_embeddings": ("n_positions", "max_position_embeddings"),
        "intermediate_size": ("n_inner",),
        "hidden_act": ("activation_function",),
        "attention_dropout": ("attn_pdrop",),
        "num_key_value_heads": (),
    },
    layout=_LAYOUT,
    form="gpt2",
    norm="layer_norm",
    causal_mask_buffer=True,
    upcasts_logits_before_5=False,
    caches_fused_qkv_before_5=True,
    targets=Targets(
        lora=("c_attn",), vera=("c_attn",), fourierft=("mlp.c_proj",), adalora=("c_attn",),
        ia3=("c_attn", "mlp.c_proj"), ia3_feedforward=("mlp.c_proj",), osf=("c_attn", "c_proj"),
    ),
)  # fmt: skip
_GPT2 = _BIGCODE._replace(
    read=_gpt2, layout=_LAYOUT._replace(conv1d=True), float32_softmax=False, causal_mask_buffer=False,
    caches_fused_qkv_before_5=False, targets=_BIGCODE.targets._replace(ln_tuning=("ln_1", "ln_2", "ln_f")),
    adaption_prompt=True,
)  # fmt: skip
FAMILIES = {"gpt2": _GPT2, "gpt_bigcode": _BIGCODE}
