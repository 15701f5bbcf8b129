"""Small configurations of every family, default and not, for tests against the real classes."""

from __future__ import annotations

from peftbench.inputs.model.family import find_family, known_families

_USUAL = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "vocab_size": 80,
}
_GPT2 = {"n_embd": 64, "n_layer": 3, "n_head": 4, "vocab_size": 80}
_FALCON = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 80}
_MAMBA = {"hidden_size": 64, "num_hidden_layers": 3, "vocab_size": 80}
_BASES = {"mamba2": _MAMBA, "gpt2": _GPT2, "gpt_bigcode": _GPT2, "falcon": _FALCON, "opt": {**_FALCON, "ffn_dim": 96}}


def small(model_type: str, **changes: object) -> dict[str, object]:
    """A config.json with the sizes that transformers requires of this family, and the changes."""
    return {"model_type": model_type, **_BASES.get(model_type, _USUAL), **changes}


_OTHERS: dict[str, dict[str, object]] = {
    "llama null kv": small("llama", num_key_value_heads=None, head_dim=None),
    "llama biases": small("llama", attention_bias=True, mlp_bias=True, head_dim=32),
    "llama tied": small("llama", tie_word_embeddings=True, num_key_value_heads=2),
    "mistral defaults": small("mistral", num_attention_heads=16),
    "mistral no window": small("mistral", num_key_value_heads=1, sliding_window=None),
    "qwen2 defaults": small("qwen2", num_attention_heads=32),
    "qwen2 sliding": small("qwen2", num_key_value_heads=2, use_sliding_window=True, max_window_layers=1),
    "qwen2 head_dim": small("qwen2", num_key_value_heads=2, head_dim=32),
    "qwen3 defaults": small("qwen3", num_attention_heads=32),
    "qwen3 biases": small("qwen3", num_key_value_heads=1, attention_bias=True, head_dim=8),
    "qwen3 layer_types": small(
        "qwen3",
        num_key_value_heads=1,
        use_sliding_window=True,
        sliding_window=16,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    ),
    "gemma defaults": small("gemma", num_attention_heads=16),
    "gemma gelu, untied": small("gemma", num_key_value_heads=1, hidden_act="gelu", tie_word_embeddings=False),
    "gemma2 biases": small("gemma2", attention_bias=True, attn_logit_softcapping=None),
    "gemma3_text pattern": small("gemma3_text", sliding_window_pattern=2, sliding_window=8),
    "gemma3_text layer_types": small(
        "gemma3_text",
        tie_word_embeddings=False,
        final_logit_softcapping=30.0,
        layer_types=["full_attention", "full_attention", "sliding_attention"],
    ),
    "phi norms, tied": small(
        "phi",
        qk_layernorm=True,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        resid_pdrop=0.1,
        embd_pdrop=0.2,
        partial_rotary_factor=0.25,
    ),
    "phi3 window": small(
        "phi3",
        num_key_value_heads=1,
        sliding_window=7,
        tie_word_embeddings=True,
        partial_rotary_factor=0.5,
        resid_pdrop=0.1,
    ),
    "gpt2 inner, untied": small(
        "gpt2",
        n_inner=96,
        tie_word_embeddings=False,
        activation_function="relu",
        resid_pdrop=0.0,
        attn_pdrop=0.3,
        embd_pdrop=0.2,
        n_positions=33,
    ),
    "gpt2 other spelling": {
        "model_type": "gpt2",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 80,
        "max_position_embeddings": 24,
    },
    "gpt_bigcode multi-head": small("gpt_bigcode", multi_query=False, n_inner=100),
    "gpt_neox serial": small(
        "gpt_neox",
        use_parallel_residual=False,
        attention_bias=False,
        rotary_pct=0.5,
        hidden_dropout=0.1,
        tie_word_embeddings=True,
    ),
    "opt post-norm, projected": small("opt", do_layer_norm_before=False, word_embed_proj_dim=32),
    "opt projected, untied": small("opt", word_embed_proj_dim=32, tie_word_embeddings=False),
    "opt no bias": small("opt", enable_bias=False, _remove_final_layer_norm=True, dropout=0.0),
    "olmo2 biases": small("olmo2", attention_bias=True, num_key_value_heads=2),
    "smollm3 nope": small(
        "smollm3",
        num_key_value_heads=2,
        no_rope_layers=[0, 1, 0],
        attention_bias=True,
        mlp_bias=True,
        use_sliding_window=True,
        sliding_window=9,
        tie_word_embeddings=False,
    ),
    "smollm3 interval": small("smollm3", no_rope_layer_interval=2),
    "falcon new": small("falcon", new_decoder_architecture=True, num_kv_heads=2),
    "falcon new, one norm": small("falcon", new_decoder_architecture=True, num_ln_in_parallel_attn=1, bias=True),
    "falcon multi-head, alibi": small(
        "falcon",
        multi_query=False,
        alibi=True,
        bias=True,
        parallel_attn=False,
        ffn_hidden_size=100,
        hidden_dropout=0.1,
        attention_dropout=0.2,
        activation="relu",
    ),
    "falcon serial, untied": small("falcon", parallel_attn=False, tie_word_embeddings=False, n_embed=32),
    "mixtral defaults": small("mixtral", num_attention_heads=8),
    "mixtral window": small(
        "mixtral",
        num_key_value_heads=2,
        num_experts_per_tok=2,
        num_local_experts=3,
        sliding_window=9,
        head_dim=8,
    ),
    "qwen3_moe defaults": small("qwen3_moe", num_experts=4, num_experts_per_tok=2),
    "qwen3_moe mlp_only_layers": small(
        "qwen3_moe",
        num_key_value_heads=2,
        num_experts_per_tok=2,
        num_experts=4,
        mlp_only_layers=[1],
        moe_intermediate_size=24,
        attention_bias=True,
        head_dim=8,
        use_sliding_window=True,
    ),
    "qwen3_moe sparse step": small(
        "qwen3_moe", num_key_value_heads=2, num_experts_per_tok=2, num_local_experts=4, decoder_sparse_step=2
    ),
    "gpt_oss defaults": small("gpt_oss", num_attention_heads=8, num_local_experts=4),
    "gpt_oss no bias": small(
        "gpt_oss",
        num_key_value_heads=2,
        num_experts_per_tok=2,
        num_local_experts=4,
        attention_bias=False,
        tie_word_embeddings=True,
        layer_types=["full_attention", "sliding_attention", "sliding_attention"],
        sliding_window=5,
    ),
    "cwm defaults": small("cwm", num_key_value_heads=2, head_dim=16),
    "apertus biases": small("apertus", attention_bias=True, num_key_value_heads=2),
    "vaultgemma defaults": small("vaultgemma"),
    "arcee biases": small("arcee", mlp_bias=True, attention_bias=True, num_key_value_heads=2),
    "cohere norms of heads": small("cohere", use_qk_norm=True, num_key_value_heads=2, attention_bias=True),
    "cohere2 window": small("cohere2", num_hidden_layers=5, num_key_value_heads=2, sliding_window=9),
    "cohere2 full, untied": small("cohere2", layer_types=["full_attention"] * 3, tie_word_embeddings=False),
    "ernie4_5 biases": small("ernie4_5", use_bias=True, head_dim=16),
    "granite multipliers": small("granite", num_key_value_heads=2, mlp_bias=True, residual_multiplier=0.2),
    "helium defaults": small("helium", num_key_value_heads=4, head_dim=16),
    "helium biases": small("helium", num_key_value_heads=2, head_dim=16, attention_bias=True, mlp_bias=True),
    "hunyuan_v1_dense defaults": small("hunyuan_v1_dense", num_key_value_heads=2, head_dim=16),
    "nemotron defaults": small("nemotron", num_key_value_heads=2),
    "nemotron biases": small("nemotron", num_key_value_heads=4, attention_bias=True, mlp_bias=True),
    "ministral3 defaults": small("ministral3", num_attention_heads=8),
    "olmo clipped, tied": small("olmo", clip_qkv=8.0, tie_word_embeddings=True, num_key_value_heads=2),
    "stablelm defaults": small("stablelm", num_key_value_heads=4),
    "stablelm parallel, norms of heads": small(
        "stablelm",
        num_attention_heads=2,
        num_key_value_heads=1,
        use_parallel_residual=True,
        qk_layernorm=True,
        use_qkv_bias=True,
    ),
    "stablelm dropout": small("stablelm", num_key_value_heads=2, hidden_dropout=0.1, partial_rotary_factor=1.0),
    "exaone4 defaults": small("exaone4", num_attention_heads=32),
    "exaone4 hybrid": small("exaone4", num_hidden_layers=5, num_key_value_heads=2, sliding_window=9),
    "exaone4 no window": small(
        "exaone4", num_key_value_heads=2, sliding_window=None, layer_types=["full_attention"] * 3
    ),
    "glm no biases": small("glm", attention_bias=False, head_dim=16, partial_rotary_factor=1.0),
    "iquestcoder defaults": small("iquestcoder", num_attention_heads=8),
    "internlm3 biases": small("internlm3", qkv_bias=True, bias=True),
    "lfm2 defaults": small("lfm2", num_attention_heads=8),
    "lfm2 convolutions": small(
        "lfm2",
        num_key_value_heads=2,
        layer_types=["conv", "full_attention", "conv"],
        conv_bias=True,
        conv_L_cache=4,
        block_auto_adjust_ff_dim=False,
        tie_word_embeddings=False,
    ),
    "mamba2 defaults": small("mamba2", num_heads=8, head_dim=16, n_groups=2, state_size=8, chunk_size=8),
    "mamba2 biases": small(
        "mamba2",
        num_heads=4,
        head_dim=16,
        n_groups=1,
        state_size=16,
        chunk_size=16,
        expand=1,
        use_bias=True,
        use_conv_bias=False,
        residual_in_fp32=False,
        tie_word_embeddings=True,
    ),
    "ministral defaults": small("ministral", num_attention_heads=8, head_dim=16),
    "ministral layer_types": small(
        "ministral",
        num_key_value_heads=2,
        head_dim=16,
        sliding_window=9,
        layer_types=["full_attention", "sliding_attention", "full_attention"],
    ),
    "olmo3 window": small("olmo3", num_hidden_layers=5, num_key_value_heads=2, sliding_window=9, attention_bias=True),
    "qwen3_5_text defaults": small("qwen3_5_text", num_hidden_layers=4, num_attention_heads=8),
    "qwen3_5_text layer_types": small(
        "qwen3_5_text",
        num_key_value_heads=2,
        head_dim=16,
        linear_num_key_heads=4,
        linear_num_value_heads=4,
        linear_key_head_dim=16,
        linear_value_head_dim=8,
        linear_conv_kernel_dim=3,
        partial_rotary_factor=0.5,
        layer_types=["full_attention", "linear_attention", "full_attention"],
    ),
    "seed_oss defaults": small("seed_oss", num_attention_heads=8),
    "starcoder2 no biases": small(
        "starcoder2", use_bias=False, sliding_window=9, residual_dropout=0.1, embedding_dropout=0.1
    ),
}  # fmt: skip
VARIANTS = _OTHERS | {
    f"{name} defaults": small(name)
    for name in known_families()
    if f"{name} defaults" not in _OTHERS and (row := find_family(name)) and not row.text_type
}
"""Those above and the defaults of every other family."""
