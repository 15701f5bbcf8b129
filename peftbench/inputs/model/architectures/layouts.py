"""How transformers names the modules of each architecture: the names that PEFT's target_modules match."""

from __future__ import annotations

from typing import NamedTuple


class Layout(NamedTuple):
    """Module names of one architecture, by default those of Llama; an empty name is a module it lacks."""

    embedding: str = "embed_tokens"
    positions: str = ""
    attention: str = "self_attn."
    qkv: tuple[str, ...] = ("q_proj", "k_proj", "v_proj")
    """One name where query, key and value are fused."""
    output: str = "o_proj"
    mlp: str = "mlp."
    inner: tuple[str, ...] = ("gate_proj", "up_proj")
    """Projections into the MLP: two when gated, one when plain."""
    fused_gate: bool = False
    """One inner projection with twice the columns (Phi-3)."""
    down: str = "down_proj"
    router: str = ""
    norms: tuple[str, ...] = ("input_layernorm", "post_attention_layernorm")
    qk_norms: tuple[str, str] = ("q_norm", "k_norm")
    final_norm: str = "norm"
    layer_norm: bool = False
    """LayerNorm has a bias; RMSNorm has none."""
    conv1d: bool = False
    """Linear layers are transformers' Conv1D, which stores (in_features, out_features)."""
    plain_linear: bool = True
    """Linear layers are exactly nn.Linear or Conv1D; transformers 5 quantizes no subclass of them."""


_LLAMA = Layout()
_MIXTRAL = _LLAMA._replace(router="mlp.gate")
_GEMMA2 = _LLAMA._replace(
    norms=(
        "input_layernorm",
        "post_attention_layernorm",
        "pre_feedforward_layernorm",
        "post_feedforward_layernorm",
    ),
)
_BIGCODE = Layout(
    embedding="wte", positions="wpe", attention="attn.", qkv=("c_attn",), output="c_proj", inner=("c_fc",),
    down="c_proj", norms=("ln_1", "ln_2"), final_norm="ln_f", layer_norm=True,
)  # fmt: skip
_NEOX = Layout(
    embedding="embed_in", attention="attention.", qkv=("query_key_value",), output="dense",
    inner=("dense_h_to_4h",), down="dense_4h_to_h", final_norm="final_layer_norm", layer_norm=True,
)  # fmt: skip
_PHI = Layout(
    output="dense", inner=("fc1",), down="fc2", norms=("input_layernorm",),
    qk_norms=("q_layernorm", "k_layernorm"), final_norm="final_layernorm", layer_norm=True,
)  # fmt: skip
_OPT = Layout(
    positions="embed_positions", output="out_proj", mlp="", inner=("fc1",), down="fc2",
    norms=("self_attn_layer_norm", "final_layer_norm"), final_norm="final_layer_norm", layer_norm=True,
)  # fmt: skip
_FALCON = _NEOX._replace(
    embedding="word_embeddings", attention="self_attention.", final_norm="ln_f", plain_linear=False
)

LAYOUTS: dict[str, Layout] = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma", "smollm3"), _LLAMA),
    **dict.fromkeys(("gemma2", "gemma3_text"), _GEMMA2),
    **dict.fromkeys(("mixtral", "qwen3_moe"), _MIXTRAL),
    "olmo2": _LLAMA._replace(norms=("post_attention_layernorm", "post_feedforward_layernorm")),
    "phi": _PHI,
    "phi3": _LLAMA._replace(qkv=("qkv_proj",), inner=("gate_up_proj",), fused_gate=True),
    "gpt2": _BIGCODE._replace(conv1d=True),
    "gpt_bigcode": _BIGCODE,
    "gpt_neox": _NEOX,
    "opt": _OPT,
    "falcon": _FALCON,
    "gpt_oss": _LLAMA._replace(router="mlp.router"),
}
"""By model_type; tests/oracles/weights/test_model_weights.py compares every name with the real module."""

FALCON_PARALLEL_NORMS = {1: ("input_layernorm",), 2: ("ln_attn", "ln_mlp")}
"""Falcon renames its norms when attention and MLP run in parallel."""
