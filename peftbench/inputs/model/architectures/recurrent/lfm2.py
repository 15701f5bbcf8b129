"""LFM2: short convolutions between gates in most layers, attention with norms of queries and keys in the others."""

from __future__ import annotations

from peftbench.inputs.model.config_keys import ConfigKeys
from peftbench.inputs.model.family import Family, Layout
from peftbench.inputs.model.field_groups import Fields, core_fields, rotary_fields
from peftbench.inputs.model.parts import Attention, FeedForward, Layer, Mixer, Mlp, ShortConv


def _lfm2(keys: ConfigKeys) -> Fields:
    core = _core(keys, keys.whole("intermediate_size", 12288))
    mlp = Mlp(_adjusted(keys, core["intermediate_size"]))
    return {**core, "own_layers": _layers(keys, core, [mlp] * core["num_hidden_layers"])}


def _core(keys: ConfigKeys, inner: int) -> Fields:
    core = core_fields(keys, positions=128000, key_value_heads=8, tied=True, inner=inner)
    core["tie_word_embeddings"] = keys.flag("tie_embedding", core["tie_word_embeddings"])
    return {**rotary_fields(core), "qk_norm": "head", "attention_dropout": 0.0, "hidden_act": "silu"}


def _adjusted(keys: ConfigKeys, inner: int) -> int:
    """Two thirds of the width that config.json gives, times a factor, rounded up to whole blocks."""
    if not keys.flag("block_auto_adjust_ff_dim", True):
        return inner
    block = keys.whole("block_multiple_of", 256)
    return -(-int(keys.real("block_ffn_dim_multiplier", 1.0, 1e3) * int(2 * inner / 3)) // block) * block


def _layers(keys: ConfigKeys, core: Fields, networks: list[FeedForward]) -> tuple[Layer, ...]:
    attention = Attention(
        core["num_attention_heads"], core["num_key_value_heads"], core["head_dim"], core["rotary_dim"]
    )
    conv = ShortConv(core["hidden_size"], keys.whole("conv_L_cache", 3), keys.flag("conv_bias", False))
    mixers: list[Mixer] = [attention if attends else conv for attends in _attends(keys, core["num_hidden_layers"])]
    return tuple(map(Layer, mixers, networks))


def _attends(keys: ConfigKeys, layers: int) -> list[bool]:
    """Whether each layer attends; all do where neither layer_types nor full_attn_idxs is given."""
    types, attending = keys.layer_types(layers), keys.whole_list("full_attn_idxs")
    if types is not None:
        return [kind != "conv" for kind in types]
    return [attending is None or layer in attending for layer in range(layers)]


_LAYOUT = Layout(
    output="out_proj", recurrent="conv.", mlp="feed_forward.", inner=("w1", "w3"), down="w2",
    norms=("operator_norm", "ffn_norm"), qk_norms=("q_layernorm", "k_layernorm"), final_norm="embedding_norm",
)  # fmt: skip
FAMILIES = {
    "lfm2": Family(read=_lfm2, spelled={"intermediate_size": ("block_ff_dim", "intermediate_size")}, layout=_LAYOUT)
}
