"""A decoder-only transformer in the words of its config.json, known by formula or by name only."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from peftbench.inputs.model.family import Family, find_family


@dataclass(frozen=True, kw_only=True, repr=False)
class ModelSpec:
    """Everything about a model that decides its memory; built by `config_json.read_config`.

    Field names are those of `config.json` where one exists. Two specs that differ only in `name` or `source`
    need the same memory.
    """

    name: str
    source: str
    model_type: str
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    max_position_embeddings: int
    tie_word_embeddings: bool
    hidden_act: str

    stored_quantization: str = ""
    """The quant_method of the checkpoint's quantization_config; it is shown, not priced: the recipe decides."""
    embedding_size: int
    """Width of the token embedding; only OPT-350m projects it to `hidden_size`."""
    learned_positions: int = 0
    """Rows of a learned position table; 0 when positions are rotary or ALiBi."""
    rotary_dim: int = 0
    """Channels of each head that are rotated; 0 without rotary embedding."""
    layers_without_rope: tuple[int, ...] = ()
    """Layers that skip the rotation (SmolLM3)."""
    alibi: bool = False

    qkv_bias: bool = False
    attention_output_bias: bool = False
    mlp_bias: bool = False
    lm_head_bias: bool = False
    qk_norm: str = "none"
    """Norm of queries and keys: "none", "head" (over head_dim), "full" (over all heads)."""
    attention_sinks: bool = False
    attn_logit_softcapping: float | None = None
    final_logit_softcapping: float | None = None
    sliding_window: int | None = None
    sliding_layers: tuple[int, ...] = ()
    """Layers that attend within `sliding_window` only."""

    attention_dropout: float = 0.0
    residual_dropout: float = 0.0
    embedding_dropout: float = 0.0

    parallel_attention: bool = False
    """Attention and MLP read the same residual (GPT-NeoX, Phi, Falcon)."""
    norms_per_layer: int = 2
    norm_before: bool = True
    """False for post-norm OPT-350m."""
    final_norm: bool = True

    num_experts: int = 0
    num_experts_per_tok: int = 0
    moe_intermediate_size: int = 0
    dense_layers: tuple[int, ...] = ()
    """Layers with a plain MLP among experts (Qwen3-MoE's mlp_only_layers and decoder_sparse_step)."""

    def __repr__(self) -> str:
        """Its name stands for all its fields."""
        return f"ModelSpec({self.name!r})"

    @cached_property
    def family(self) -> Family:
        """What is particular to models of this type."""
        family = find_family(self.model_type)
        assert family is not None, self.model_type  # read_config refuses other types
        return family

    @cached_property
    def query_size(self) -> int:
        """Channels of all query heads."""
        return self.num_attention_heads * self.head_dim

    @cached_property
    def key_value_size(self) -> int:
        """Channels of all key heads, which are as many as those of all value heads."""
        return self.num_key_value_heads * self.head_dim


class OtherModel(NamedTuple):
    """A model whose architecture is not known by formula: only a dry run can say what it needs."""

    name: str
    source: str
    model_type: str
    max_position_embeddings: int
    num_parameters: int = 0
    """0 until a dry run has built it."""
