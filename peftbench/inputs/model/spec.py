"""A decoder-only transformer in the words of its config.json, known by formula or by name only."""

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal, NamedTuple

from peftbench.base.codec import Count, Share, Within, check_fields
from peftbench.base.errors import NoFormula, SpecError
from peftbench.base.visible import written
from peftbench.inputs.model.config_keys import ACTIVATIONS, LIMITS
from peftbench.inputs.model.family import Family, find_family
from peftbench.inputs.model.parts import Attention, Experts, Layer, Mlp

Positive = Annotated[int, Within(1)]
Layers = tuple[Count, ...]
"""Numbers of layers, from 0."""


@dataclass(frozen=True, kw_only=True, repr=False)
class ModelSpec:
    """Everything about a model that decides its memory; built by `config_json.read_config`.

    Field names are those of `config.json` where one exists. Two specs that differ only in `name` or `source`
    need the same memory.
    """

    name: str
    source: str
    model_type: str
    hidden_size: Positive
    intermediate_size: Positive
    num_hidden_layers: Positive
    num_attention_heads: Count
    num_key_value_heads: Count
    head_dim: Count
    vocab_size: Positive
    max_position_embeddings: Positive
    tie_word_embeddings: bool
    hidden_act: str

    stored_quantization: str = ""
    """The quant_method of the checkpoint's quantization_config; it is shown, not priced: the recipe decides."""
    embedding_size: Positive
    """Width of the token embedding; only OPT-350m projects it to `hidden_size`."""
    learned_positions: Count = 0
    """Rows of a learned position table; 0 when positions are rotary or ALiBi."""
    rotary_dim: Count = 0
    """Channels of each head that are rotated; 0 without rotary embedding."""
    layers_without_rope: Layers = ()
    """Layers that skip the rotation (SmolLM3)."""
    alibi: bool = False

    qkv_bias: bool = False
    attention_output_bias: bool = False
    mlp_bias: bool = False
    lm_head_bias: bool = False
    qk_norm: Literal["none", "head", "each", "full"] = "none"
    """Norm of queries and keys: "none", "head" (over head_dim), "each" (with weights for each head), "full" (over all
    heads)."""
    clips_qkv: bool = False
    """Queries, keys and values are clamped in place (OLMo)."""
    attention_sinks: bool = False
    attn_logit_softcapping: Annotated[float, Within(0, 1e6)] | None = None
    final_logit_softcapping: Annotated[float, Within(0, 1e6)] | None = None
    sliding_window: Positive | None = None
    sliding_layers: Layers = ()
    """Layers that attend within `sliding_window` only."""

    attention_dropout: Share = 0.0
    residual_dropout: Share = 0.0
    embedding_dropout: Share = 0.0

    parallel_attention: bool = False
    """Attention and MLP read the same residual (GPT-NeoX, Phi, Falcon)."""
    norms_per_layer: Annotated[int, Within(1, 8)] = 2
    norm_before: bool = True
    """False for post-norm OPT-350m."""
    final_norm: bool = True
    residual_in_float32: bool = False
    """The stream between layers is float32 (Mamba)."""

    num_experts: Count = 0
    num_experts_per_tok: Count = 0
    moe_intermediate_size: Count = 0
    shared_intermediate_size: Count = 0
    """Channels of the network beside the experts, all its experts together."""
    dense_layers: Layers = ()
    """Layers with a plain MLP among experts (Qwen3-MoE's mlp_only_layers and decoder_sparse_step)."""
    split_experts: bool = False
    """Experts are MLPs of linear layers, not fused parameters: transformers before 5, see weights.built_by."""

    own_layers: tuple[Layer, ...] = ()
    """Every layer by its parts, where the fields of attention and feed-forward above do not say what they are made of.

    Those fields then hold what is true of the layers that have attention, or 0 where none has.
    """

    def __post_init__(self) -> None:
        """Raise SpecError for sizes that no model can have; a config.json is held to them by its own keys before."""
        check_fields(self)
        for name, most in LIMITS.items():
            if getattr(self, name) > most:
                what = f"{name} must be at most {most:,} (got {written(getattr(self, name))})."
                raise SpecError(what, "Check the sizes of the model: no model has more.")
        if find_family(self.model_type) is None:
            raise NoFormula(f"model_type {written(self.model_type)} has no formula.", "`peftbench models` lists all.")
        if self.hidden_act not in ACTIVATIONS:
            raise SpecError(f"hidden_act must be an activation of transformers, not {written(self.hidden_act)}.")
        if not self.own_layers and not (self.num_attention_heads and self.num_key_value_heads and self.head_dim):
            raise SpecError(f"attention needs heads with channels (got {self.num_attention_heads} heads).")
        if self.num_key_value_heads and self.num_attention_heads % self.num_key_value_heads:
            raise SpecError(f"{self.num_attention_heads} heads cannot share {self.num_key_value_heads} key heads.")
        if self.num_experts_per_tok > self.num_experts or (self.num_experts and not self.moe_intermediate_size):
            raise SpecError(f"a token cannot use {self.num_experts_per_tok} of {self.num_experts} experts.")
        if max((*self.layers_without_rope, *self.sliding_layers, *self.dense_layers, 0)) >= self.num_hidden_layers:
            raise SpecError(f"a layer beyond the {self.num_hidden_layers} that there are is named.")

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """Every layer by its parts."""
        return self.own_layers or tuple(self._layer(number) for number in range(self.num_hidden_layers))

    def _layer(self, number: int) -> Layer:
        window = self.sliding_window if number in self.sliding_layers else None
        rotary_dim = 0 if number in self.layers_without_rope else self.rotary_dim
        mixer = Attention(self.num_attention_heads, self.num_key_value_heads, self.head_dim, rotary_dim, window)
        if not self.num_experts or number in self.dense_layers:
            return Layer(mixer, Mlp(self.intermediate_size))
        inner, shared = self.moe_intermediate_size, self.shared_intermediate_size
        return Layer(mixer, Experts(self.num_experts, self.num_experts_per_tok, inner, shared))

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
    max_position_embeddings: Positive
    learned_positions: bool = True
    """Whether there are no more positions than that, for all that is known."""
    num_parameters: int = 0
    """0 until a dry run has built it."""
