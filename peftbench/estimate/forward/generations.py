"""What older generations of transformers keep that transformers 5 does not; each was found in a published run.

Source: the modeling files of transformers 4.39.3, 4.45.2 and 4.48.1.
"""

from __future__ import annotations

from peftbench.inputs.model.family import Family
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.recipe import TrainingSpec

SHIFTS = ("transformers-4", "fused", "rebound", "rebound-fused", "shifted", "shifted-fused")
"""Losses that copy the logits without the last token's."""


def loss_variant(family: Family | None, training: TrainingSpec) -> str:
    """The loss of `estimate/forward/loss.py` that this generation runs; None stands for a family without a formula."""
    loss, version = training.loss, training.transformers
    if loss in ("liger", "chunked", "fused-5"):
        return loss
    if version != "5" and family and not family.upcasts_logits_before_5:
        return "shifted-fused" if loss == "fused" else "shifted"
    if version in ("4.45", "4.39"):
        return "rebound-fused" if loss == "fused" else "rebound"
    return "transformers-4" if loss == "transformers" and version == "4.48" else loss


def keeps_fused_cache(model: ModelSpec, training: TrainingSpec) -> bool:
    """Whether the outputs hold c_attn's whole output of every layer, under checkpointing too.

    GPTBigCode before transformers 5 does not switch the cache off, and its keys and values are a view of the fused
    projection.
    """
    return training.transformers != "5" and model.family.caches_fused_qkv_before_5


def repeats_keys_for_flash(model: ModelSpec, training: TrainingSpec) -> bool:
    """Whether flash attention gets keys and values copied to the query heads."""
    return training.transformers in ("4.45", "4.39") and model.family.repeats_keys_before_4_48


def quantized_saves_input(training: TrainingSpec) -> bool:
    """Whether a frozen Linear4bit saves its input: bitsandbytes before 0.43.2, of the time of transformers 4.39.

    Source: release notes of bitsandbytes 0.43.2; MatMul4Bit.forward of 0.43.1 keeps (A, B).
    """
    return training.transformers == "4.39" and training.quantization is not None


def rotary_table_bytes(model: ModelSpec, training: TrainingSpec) -> int:
    """Tables of cos and sin that each layer keeps in transformers 4.39: for all positions, or more where asked for.

    Source: LlamaRotaryEmbedding._set_cos_sin_cache.
    """
    if training.transformers != "4.39" or not model.rotary_dim:
        return 0
    table = max(model.max_position_embeddings, training.sequence_length) * model.rotary_dim * training.dtype.bytes
    return 2 * model.num_hidden_layers * table
