"""Groups of fields that several architectures read from their config.json in the same way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from peftbench.inputs.model.config_keys import ConfigKeys
from peftbench.inputs.model.parts import Attention, StateSpace

Fields = dict[str, Any]
"""Arguments of ModelSpec."""


def core_fields(
    keys: ConfigKeys,
    positions: int,
    key_value_heads: int | None = None,
    *,
    tied: bool = False,
    act: str = "silu",
    inner: int | None = None,
    head_dim: int | None = None,
    head_dim_key: bool = True,
    dropout: float = 0.0,
) -> Fields:
    """The fields every architecture has; `head_dim_key=False` for those that always divide."""
    hidden, heads = keys.whole("hidden_size"), keys.whole("num_attention_heads")
    given = keys.optional_whole("head_dim") if head_dim_key else None
    return {
        "hidden_size": hidden,
        "num_hidden_layers": keys.whole("num_hidden_layers"),
        "num_attention_heads": heads,
        "num_key_value_heads": _key_value_heads(keys, heads, key_value_heads),
        "head_dim": given or head_dim or _divide(keys, hidden, heads),
        "vocab_size": keys.whole("vocab_size"),
        "embedding_size": hidden,
        "intermediate_size": keys.whole("intermediate_size", inner),
        "max_position_embeddings": keys.whole("max_position_embeddings", positions),
        "tie_word_embeddings": keys.flag("tie_word_embeddings", tied),
        "hidden_act": keys.activation("hidden_act", act),
        "attention_dropout": keys.real("attention_dropout", dropout),
    }


def _key_value_heads(keys: ConfigKeys, heads: int, default: int | None) -> int:
    """Omitted means the class's default, null (and a default of None) as many as query heads."""
    fallback = heads if default is None or keys.has("num_key_value_heads") else default
    number = keys.whole("num_key_value_heads", fallback)
    if heads % number:
        raise keys.refuse("num_key_value_heads", number, f"a divisor of num_attention_heads ({heads})")
    return number


def _divide(keys: ConfigKeys, hidden: int, heads: int) -> int:
    if hidden % heads:
        raise keys.refuse("num_attention_heads", heads, f"a divisor of hidden_size ({hidden})")
    return hidden // heads


def rotary_fields(core: Fields, factor: float = 1.0) -> Fields:
    return {**core, "rotary_dim": int(core["head_dim"] * factor)}


def rotary_factor(keys: ConfigKeys, default: float, old_key: str = "partial_rotary_factor") -> float:
    """The share of a head that is rotated, from rope_parameters (transformers 5) or from the older key."""
    for group in ("rope_scaling", "rope_parameters"):
        rope = keys.value(group)
        if isinstance(rope, Mapping) and rope.get("partial_rotary_factor") is not None:
            return ConfigKeys(rope, keys.name).real("partial_rotary_factor", default)
    return keys.real(old_key, default)


def bias_fields(keys: ConfigKeys, default: bool = False) -> Fields:
    """attention_bias switches all four projections of attention."""
    bias = keys.flag("attention_bias", default)
    return {"qkv_bias": bias, "attention_output_bias": bias}


def dropout_fields(keys: ConfigKeys, default: float) -> Fields:
    """Dropouts as GPT-2 spells them."""
    return {
        "residual_dropout": keys.real("resid_pdrop", default),
        "embedding_dropout": keys.real("embd_pdrop", default),
    }


def window_fields(keys: ConfigKeys, sliding_layers: tuple[int, ...], default: int | None) -> Fields:
    """A window is only kept where some layer slides; a window of null switches sliding off."""
    written = keys.has("sliding_window")
    window = keys.optional_whole("sliding_window") if written else default
    if window is None or not sliding_layers:
        return {}
    return {"sliding_window": window, "sliding_layers": sliding_layers}


def every_layer(core: Fields) -> tuple[int, ...]:
    return tuple(range(core["num_hidden_layers"]))


def sliding_layers(keys: ConfigKeys, layers: int, slides: Callable[[int], bool]) -> tuple[int, ...]:
    """Layers whose layer_types entry is sliding_attention; `slides` decides where the key is omitted."""
    types = keys.layer_types(layers)
    if types is None:
        return tuple(i for i in range(layers) if slides(i))
    return tuple(i for i, kind in enumerate(types) if kind == "sliding_attention")


def expert_fields(keys: ConfigKeys, inner: int, number: int | None, per_token: int | None) -> Fields:
    experts = keys.whole("num_experts", number)
    used = keys.whole("num_experts_per_tok", per_token)
    if used > experts:
        raise keys.refuse("num_experts_per_tok", used, f"at most the number of experts ({experts})")
    return {"num_experts": experts, "num_experts_per_tok": used, "moe_intermediate_size": inner}


def softcap_fields(keys: ConfigKeys, attention: float | None = None, final: float | None = None) -> Fields:
    """Omitted means the class's default, null means none."""
    defaults = {"attn_logit_softcapping": attention, "final_logit_softcapping": final}
    return {k: keys.optional_real(k, 1e6) if keys.has(k) else default for k, default in defaults.items()}


def attention_of(core: Fields) -> Attention:
    """The part of layers that attend to all tokens."""
    heads, rotary_dim = core["num_attention_heads"], core.get("rotary_dim", 0)
    return Attention(heads, core["num_key_value_heads"], core["head_dim"], rotary_dim)


def mamba2_of(keys: ConfigKeys, inner: int) -> StateSpace:
    """The part as most hybrids spell it, with so many channels of all heads."""
    heads, bias = keys.whole("mamba_n_heads", 128), keys.flag("mamba_proj_bias", False)
    given = keys.value("mamba_d_head")
    head_dim = inner // heads if given in (None, "auto") else keys.whole("mamba_d_head")
    if heads * head_dim != inner:
        raise keys.refuse("mamba_d_head", head_dim, f"what makes {inner} channels of {heads} heads")
    return StateSpace(
        heads, head_dim, keys.whole("mamba_d_state", 256), keys.whole("mamba_n_groups", 1),
        keys.whole("mamba_d_conv", 4), keys.whole("mamba_chunk_size", 256), bias,
        keys.flag("mamba_conv_bias", True), bias,
    )  # fmt: skip
