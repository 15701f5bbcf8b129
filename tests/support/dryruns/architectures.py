"""A config.json for each causal language model of the installed transformers: its defaults, cut to a few layers.

Nothing else has to be small, since fake tensors take no memory. As many layers stay as show every kind of layer.
"""

from __future__ import annotations

import json
from typing import Any

DEPTHS = (
    "num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "encoder_layers", "num_decoder_layers",
    "num_encoder_layers", "depth", "num_blocks", "num_layers_per_stack", "conf_num_hidden_layers",
)  # fmt: skip
KINDS = ("layer_types", "mlp_layer_types", "layers_block_type", "attn_layers", "indexer_types")
LEAST = {"zamba": 8, "gemma3n_text": 10, "gemma3n": 10, "jamba": 5, "recurrent_gemma": 3}
"""Where not every kind of layer comes up earlier, or shared blocks are shared with something only from here on."""

ROPE = {"rope_type": "default", "rope_theta": 10000.0}
MISSING: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1]},
    "cohere_compass_text": {"rope_parameters": {"full_attention": ROPE, "sliding_attention": ROPE}},
    "dbrx": {"attn_config": {"kv_n_heads": 8, "rope_theta": 500000.0, "clip_qkv": 8.0}},
    "deepseek_v2": {"num_experts_per_tok": 2, "n_group": 1, "topk_group": 1},
    "dots1": {"n_routed_experts": 8, "num_experts_per_tok": 2, "n_shared_experts": 1},
    "gemma3n_text": {"num_kv_shared_layers": 5},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"]},
    "hrm_text": {"num_hidden_layers": 16},
    "hunyuan_v1_dense": {"head_dim": 128},
    "hunyuan_v1_moe": {"head_dim": 128},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "ministral": {"head_dim": 128},
    "nemotron": {"num_key_value_heads": 8},
    "qwen4_exp_text": {
        "indexer_n_heads": 4, "indexer_kv_heads": 1, "indexer_head_dim": 256, "indexer_budget": 64,
        "indexer_compress_ratio": 4,
    },
    "reformer": {"is_decoder": True, "axial_pos_shape": [4, 8]},
    "xmod": {"default_language": "en_XX"},
}  # fmt: skip
"""What a class needs and its defaults leave out; published checkpoints have it."""


def names() -> tuple[str, ...]:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def config_of(name: str) -> str:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    try:
        given = json.loads(CONFIG_MAPPING[name]().to_json_string(use_diff=False))
    except Exception:  # an assistant has no defaults of its own
        return json.dumps({"model_type": name})
    for key in ("transformers_version", "architectures", "_name_or_path", "dtype"):
        given.pop(key, None)
    config = {**cut(given, LEAST.get(name, 2)), **MISSING.get(name, {}), "model_type": name}
    if name == "qwen4_exp":
        config["text_config"] |= MISSING["qwen4_exp_text"]
    return json.dumps(config)


def cut(given: dict[str, Any], least: int) -> dict[str, Any]:
    """The config with as many layers as show every kind, and no fewer than `least`."""
    config = {key: cut(value, least) if isinstance(value, dict) else value for key, value in given.items()}
    depth = next((config[name] for name in DEPTHS if isinstance(config.get(name), int)), None)
    if depth is None:
        return config
    layers = max([least, *(_until_all(config[name]) for name in KINDS if len(config.get(name) or ()) == depth)])
    for key, value in config.items():
        if key in DEPTHS and isinstance(value, int):
            config[key] = min(value, layers)
        elif isinstance(value, list) and len(value) == depth:
            config[key] = value[:layers]
        elif key == "per_layer_config" and value:
            config[key] = {index: one for index, one in value.items() if int(index) < layers}
    return config


def _until_all(kinds: list[Any]) -> int:
    """How many layers it takes until each kind has come up."""
    return next(count for count in range(1, len(kinds) + 1) if set(map(str, kinds[:count])) == set(map(str, kinds)))
