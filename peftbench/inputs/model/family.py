"""What is particular to a family of models: one row each, in the files of `architectures/`.

A file is called as the model_type of its first row and may hold close relatives, which SHARED names. Only the file that
is asked for is loaded. Every default is Llama's; where a library knows some families by name, the default is that it
does not know this one.
"""

import os
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib import import_module
from typing import Any, Literal, NamedTuple

from peftbench.inputs.model.config_keys import ConfigKeys

SHARED = {
    "qwen3": "qwen2", "qwen3_moe": "qwen2", "mixtral": "mistral", "phi3": "phi", "gpt_bigcode": "gpt2",
    "granitemoe": "experts.granitemoe", "granitemoeshared": "experts.granitemoe", "minimax_m2": "experts.minimax_m2",
    "dots1": "experts.glm4_moe", "flex_olmo": "olmoe",
    "gemma2": "gemma", "gemma3": "gemma", "gemma3_text": "gemma", "internlm3": "llama", "iquestcoder": "llama",
    "olmo3": "olmo2", "ministral": "mistral", "glm": "dense.glm", "glm4": "dense.glm", "exaone4": "dense.exaone4",
    "seed_oss": "dense.seed_oss", "starcoder2": "dense.starcoder2", "granite": "dense.granite",
    "hunyuan_v1_dense": "dense.hunyuan_v1_dense", "ernie4_5": "dense.ernie4_5", "helium": "dense.ernie4_5",
    "cohere": "dense.cohere", "cohere2": "dense.cohere", "stablelm": "dense.stablelm", "nemotron": "dense.nemotron",
    "arcee": "dense.nemotron", "olmo": "olmo2", "ministral3": "mistral",
    "hyperclovax": "dense.granite", "jais2": "dense.nemotron", "apertus": "dense.nemotron", "vaultgemma": "gemma",
    "cwm": "dense.cwm", "lfm2": "recurrent.lfm2", "mamba2": "recurrent.mamba2",
    "qwen3_5_text": "delta.qwen3_5_text", "youtu": "latent.youtu", "deepseek_v3": "latent.deepseek_v3",
    "deepseek_v2": "latent.deepseek_v3", "glm4_moe_lite": "latent.deepseek_v3",
    "qwen3_5_moe_text": "delta.qwen3_5_moe_text", "qwen3_next": "delta.qwen3_5_moe_text",
    "mistral4": "latent.mistral4",
    "qwen2_moe": "experts.qwen2_moe", "glm4_moe": "experts.glm4_moe",
    "falcon_h1": "recurrent.falcon_h1", "granitemoehybrid": "recurrent.granitemoehybrid",
    "bamba": "recurrent.granitemoehybrid", "nemotron_h": "recurrent.nemotron_h",
}  # fmt: skip
"""Families whose row stands in the file of a relative or in a folder of `architectures/`."""

LLAMA_NORMS = ("input_layernorm", "post_attention_layernorm")
GEMMA2_NORMS = (*LLAMA_NORMS, "pre_feedforward_layernorm", "post_feedforward_layernorm")
LLAMA_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "down_proj", "up_proj")


class DeltaNames(NamedTuple):
    """The names in a gated delta net; Qwen3.5's are the default."""

    block: str = "linear_attn."
    qkv: tuple[str, ...] = ("in_proj_qkv",)
    """Three where queries, keys and values have their own."""
    gate: str = "in_proj_z"
    """Empty where it is the last part of the one above."""
    rates: tuple[str, ...] = ("in_proj_b", "in_proj_a")
    """What a token adds to the state, and what the state keeps: one where they are fused."""
    norm: str = "norm"
    output: str = "out_proj"


class Layout(NamedTuple):
    """How transformers names a family's modules, which PEFT's target_modules match; an empty name: it has none.

    tests/oracles/weights/test_model_weights.py compares every name with the real module.
    """

    layers: str = "model.layers"
    """The list of decoder layers; what is outside of them, but for the head, is beside it."""
    embedding: str = "embed_tokens"
    positions: str = ""
    attention: str = "self_attn."
    qkv: tuple[str, ...] = ("q_proj", "k_proj", "v_proj")
    """One name where query, key and value are fused."""
    output: str = "o_proj"
    recurrent: str = ""
    """A convolution or a state-space layer, beside attention or in its place."""
    delta: DeltaNames = DeltaNames()
    mlp: str = "mlp."
    inner: tuple[str, ...] = ("gate_proj", "up_proj")
    """Projections into the MLP: two when gated, one when plain."""
    fused_gate: bool = False
    """One inner projection with twice the columns (Phi-3)."""
    down: str = "down_proj"
    router: str = ""
    experts: str = "mlp.experts"
    shared: str = "mlp.shared_experts."
    """The network beside the experts."""
    shared_gate: str = ""
    """A linear layer that weighs its output for each token (Qwen2-MoE)."""
    norms: tuple[str, ...] = LLAMA_NORMS
    """In the order of the forward pass."""
    parallel_norms: Mapping[int, tuple[str, ...]] = {}
    """Their other names where attention and MLP run in parallel, by their number (Falcon)."""
    qk_norms: tuple[str, str] = ("q_norm", "k_norm")
    qk_norm_list: str = ""
    """The list in them of a norm for each head (StableLM)."""
    final_norm: str = "norm"
    conv1d: bool = False
    """Linear layers are transformers' Conv1D, which stores (in_features, out_features)."""
    plain_linear: bool = True
    """Linear layers are exactly nn.Linear or Conv1D; transformers 5 quantizes no subclass of them."""
    network_first: bool = False
    """A layer makes its feed-forward network before its mixer, so it lies before it in memory."""
    made: tuple[str, ...] = ()
    """Modules that the family's classes make in this order, where they run in another: so they lie in memory."""
    biased_experts: bool = False
    """Router and experts have biases where the model's MLPs do (GPT-OSS)."""
    transposed_experts: bool = False
    """Fused experts are stored as (experts, in_features, out_features)."""


class SplitExperts(NamedTuple):
    """The names of experts in transformers 4, each an MLP of linear layers in a list, and of the block around them."""

    block: str = "mlp."
    inner: tuple[str, str] = ("gate_proj", "up_proj")
    down: str = "down_proj"
    router: str = "mlp.gate"
    """A linear layer too."""


class Router(NamedTuple):
    """How experts are chosen and weighed."""

    scores: Literal["softmax", "narrow_softmax", "softmax_of_chosen", "sigmoid"] = "softmax"
    """Scores are made of all experts' logits, in float32 or, narrow, in their type unless under autocast (Mistral 4);
    or of those alone that are chosen (Granite)."""
    float32: Literal["scores", "gate"] = "scores"
    """From where on it computes in float32: from the gate on, the stream is cast too."""
    narrows: bool = True
    """Its weights are cast to the stream's type; else the experts' sum is computed in float32."""
    shared_first: bool = False
    """The network beside the experts runs before them."""


class Targets(NamedTuple):
    """The modules that PEFT 0.21 adapts by default, by `Method.targets`; empty where it has no default.

    Source: `utils/constants.py` of PEFT.
    """

    lora: tuple[str, ...] = ()
    """Also of most other types that adapt matrices."""
    vera: tuple[str, ...] = ()
    fourierft: tuple[str, ...] = ()
    adalora: tuple[str, ...] = ()
    ia3: tuple[str, ...] = ()
    ia3_feedforward: tuple[str, ...] = ()
    """Those whose input IA3 scales, not their output."""
    beft: tuple[str, ...] = ()
    osf: tuple[str, ...] = ()
    ln_tuning: tuple[str, ...] = ()


_QV = ("q_proj", "v_proj")
LLAMA_TARGETS = Targets(
    lora=_QV, vera=_QV, fourierft=_QV, adalora=_QV, ia3=("k_proj", "v_proj", "down_proj"),
    ia3_feedforward=("down_proj",), beft=("v_proj",), osf=LLAMA_LINEAR, ln_tuning=(*LLAMA_NORMS, "norm"),
)  # fmt: skip


QWEN2_MOE_EXPERTS = {
    "gate": "gate", "gate_proj": "gate_up_proj", "up_proj": "gate_up_proj", "down_proj": "down_proj",
}  # fmt: skip
"""`Family.expert_targets` of most families with experts, whose checkpoints transformers converts alike."""


class Family(NamedTuple):
    """One row: how to read a family's config.json, what its modules are called, and how its forward pass differs."""

    read: Callable[[ConfigKeys], dict[str, Any]]
    """The arguments of ModelSpec, with the defaults of `configuration_<family>.py` in transformers 5."""
    spelled: Mapping[str, tuple[str, ...]] = {}
    """Keys of config.json that differ from ModelSpec's names: the class's attribute_map, mostly."""
    text_type: str = ""
    """The family of the language model in `text_config`, for the config.json of a multimodal model."""
    text_defaults: Mapping[str, object] = {}
    """What `text_config` may leave out."""

    layout: Layout = Layout()
    form: Literal["llama", "gpt2", "opt", "gpt_neox", "falcon", "mamba"] = "llama"
    """Whose code a layer follows where attention and MLP run in turn; in parallel all run alike."""
    norm: Literal["llama", "olmo2", "gemma", "layer_norm", "layer_norm_1p", "unweighted", "centered"] = "llama"
    """The flavour of RMSNorm, by the type in which the normed stream meets the weight, or of LayerNorm: with weight and
    bias, 1p in autocast's type; unweighted in float32 (OLMo); written in Python with a weight only (Cohere)."""
    scales: frozenset[
        Literal["embedding", "residual", "logits", "rotated_query", "key", "mlp", "state_space"]
    ] = frozenset()
    """What is multiplied by a number or, of rotated queries, by one for each position."""

    rotary: Literal["llama", "olmo2", "phi3", "gpt_oss", "float32"] = "llama"
    """Olmo2 has float32 tables and casts the result, phi3 concatenates it even with nothing, gpt_oss rotates two
    halves, float32 casts what it rotates (Cohere)."""
    norms_rotated: bool = False
    """Norms of queries and keys come after the rotation."""
    slices_qkv: bool = False
    """The fused projection is cut by slices, whose gradients are as wide as all of it, not by one split."""
    drops_attention: bool = True
    """Residual dropout follows attention too, not the MLP only."""
    scales_query: bool = False
    """The query is scaled before attention (OPT)."""
    copies_key_heads: bool = False
    """Shared key heads are indexed, then broadcast, before any kernel (Falcon)."""
    float32_softmax: bool = True
    """Eager attention computes its softmax in float32 whatever autocast does."""
    sdpa: bool = True
    """False where transformers runs eagerly though SDPA is the default: softcapped scores, attention sinks."""
    float32_logits: bool = False
    """The head casts the stream to its own type, and its logits to float32 (Mamba)."""
    always_masked: bool = False
    """SDPA always gets a mask, and a single key head as it is."""
    positions_by_sequence: bool = False
    """Learned positions are embedded for every sequence, not once."""
    clamped_gate: bool = False
    """Experts gate by clamped, interleaved channels (GPT-OSS)."""
    router: Router = Router()
    split_experts: SplitExperts | None = None
    """Experts before transformers 5; None where they were fused parameters from the first (GPT-OSS, since 4.55)."""
    causal_mask_buffer: bool = False
    """The model keeps a boolean mask of all positions."""

    upcasts_logits_before_5: bool = True
    """False where the family's own loss, before transformers 5, shifts the 16-bit logits as they are."""
    repeats_keys_before_4_48: bool = False
    """Flash attention, up to 4.45, gets keys and values copied to every query head."""
    caches_fused_qkv_before_5: bool = False
    """The cache, which is never switched off, holds the fused projection's whole output."""

    liger: bool = False
    """liger-kernel patches the family. Source: liger_kernel/transformers/monkey_patch.py."""
    targets: Targets = Targets()
    refused: tuple[str, ...] = ()
    """Linear layers that PEFT refuses for LoRA and its like: see peft_types.targets.refused_modules."""
    expert_targets: Mapping[str, str] = {}
    """What LoRA makes of the names that router and experts had in transformers 4; all-linear takes all of them.

    Source: `_MOE_TARGET_MODULE_MAPPING` in PEFT 0.21 `utils/transformers_weight_conversion.py`.
    """
    adaption_prompt: bool = False
    """PEFT has an adaption prompt for it: TRANSFORMERS_MODEL_CONFIG in peft/tuners/adaption_prompt/config.py."""
    prefix_spans_hidden: bool = False
    """PEFT makes prefixes as wide as the hidden size, overlooking shared heads (Falcon)."""


@lru_cache(maxsize=1)
def known_families() -> tuple[str, ...]:
    """Every model_type that has a row, in alphabetical order."""
    files = os.listdir(os.path.join(os.path.dirname(__file__), "architectures"))
    own = (name.removesuffix(".py") for name in files if name.endswith(".py") and name != "__init__.py")
    return tuple(sorted({*own, *SHARED}))


@lru_cache(maxsize=256)
def find_family(model_type: str) -> Family | None:
    """The row of this model_type, or None without a formula for it."""
    if model_type not in known_families():
        return None
    file = import_module(f"peftbench.inputs.model.architectures.{SHARED.get(model_type, model_type)}")
    row: Family = file.FAMILIES[model_type]
    return row
