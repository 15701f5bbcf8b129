"""Mamba 2: layers of one state-space part each, on a stream in float32."""

from __future__ import annotations

from typing import Any

from peftbench.inputs.model.config_keys import ConfigKeys
from peftbench.inputs.model.family import Family, Layout
from peftbench.inputs.model.field_groups import Fields
from peftbench.inputs.model.parts import Layer, Mixer, StateSpace

NO_LIMIT = 1 << 20
"""Tokens of a sequence: none is too long, and no config.json says how long they were in training."""


def _mamba2(keys: ConfigKeys) -> Fields:
    hidden = keys.whole("hidden_size", 4096)
    part = StateSpace(
        keys.whole("num_heads", 128), keys.whole("head_dim", 64), keys.whole("state_size", 128),
        keys.whole("n_groups", 8), keys.whole("conv_kernel", 4), keys.whole("chunk_size", 256),
        keys.flag("use_bias", False), keys.flag("use_conv_bias", True), keys.flag("use_bias", False),
    )  # fmt: skip
    if part.inner != hidden * keys.whole("expand", 2):
        raise keys.refuse("head_dim", part.head_dim, f"what makes expand times hidden_size ({hidden}) of all heads")
    return _without_attention(keys, hidden, 32768, part.inner, [part] * keys.whole("num_hidden_layers", 64))


def _without_attention(keys: ConfigKeys, hidden: int, vocabulary: int, inner: int, mixers: list[Any]) -> Fields:
    """The fields of a model of state-space layers alone."""
    parts: list[Mixer] = mixers
    return {
        "hidden_size": hidden, "embedding_size": hidden, "intermediate_size": inner,
        "num_hidden_layers": len(parts), "num_attention_heads": 0, "num_key_value_heads": 0, "head_dim": 0,
        "vocab_size": keys.whole("vocab_size", vocabulary),
        "max_position_embeddings": keys.whole("max_position_embeddings", NO_LIMIT),
        "tie_word_embeddings": keys.flag("tie_word_embeddings", False),
        "hidden_act": keys.activation("hidden_act", "silu"),
        "norms_per_layer": 1, "residual_in_float32": keys.flag("residual_in_fp32", True),
        "own_layers": tuple(Layer(part, None) for part in parts),
    }  # fmt: skip


_LAYOUT = Layout(
    layers="backbone.layers", embedding="embeddings", recurrent="mixer.", norms=("norm",), final_norm="norm_f"
)
FAMILIES = {"mamba2": Family(read=_mamba2, layout=_LAYOUT, form="mamba", float32_logits=True, refused=("out_proj",))}
