"""What older generations of transformers keep that transformers 5 does not; each was found in a published run.

Source: the modeling files of transformers 4.39.3, 4.45.2 and 4.48.1.
"""

from __future__ import annotations

from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.recipe.training import TrainingSpec

NO_UPCAST = ("gpt_bigcode", "gpt2", "gpt_neox", "opt", "falcon")
"""Families whose own loss, before transformers 5, shifts the 16-bit logits and does not upcast them."""

SHIFTS = ("transformers-4", "fused", "rebound", "rebound-fused", "shifted", "shifted-fused")
"""Losses that copy the logits without the last token's."""

REPEATS_KEYS_FOR_FLASH = ("mistral", "mixtral", "qwen2")
"""Families whose flash attention, up to 4.45, copies keys and values to every query head first."""


def loss_variant(model_type: str, training: TrainingSpec) -> str:
    """The loss of `estimate/forward/loss.py` that this generation runs for this family."""
    loss, version = training.loss, training.transformers
    if loss in ("liger", "chunked", "fused-5"):
        return loss
    if version != "5" and model_type in NO_UPCAST:
        return "shifted-fused" if loss == "fused" else "shifted"
    if version in ("4.45", "4.39"):
        return "rebound-fused" if loss == "fused" else "rebound"
    return "transformers-4" if loss == "transformers" and version == "4.48" else loss


def keeps_fused_cache(model: ModelSpec, training: TrainingSpec) -> bool:
    """Whether the outputs hold c_attn's whole output of every layer, under checkpointing too.

    GPTBigCode before transformers 5 does not switch the cache off, and its keys and values are a view of the fused
    projection.
    """
    return training.transformers != "5" and model.model_type == "gpt_bigcode"


def repeats_keys_for_flash(model: ModelSpec, training: TrainingSpec) -> bool:
    """Whether flash attention gets keys and values copied to the query heads."""
    return training.transformers in ("4.45", "4.39") and model.model_type in REPEATS_KEYS_FOR_FLASH


def quantized_saves_input(training: TrainingSpec) -> bool:
    """Whether a frozen Linear4bit saves its input: bitsandbytes before 0.43.2, of the time of transformers 4.39.

    Source: release notes of bitsandbytes 0.43.2; MatMul4Bit.forward of 0.43.1 keeps (A, B).
    """
    return training.transformers == "4.39" and training.quantization is not None


def rotary_table_bytes(model: ModelSpec, training: TrainingSpec) -> int:
    """Tables of cos and sin for all positions that each layer keeps in transformers 4.39."""
    if training.transformers != "4.39" or not model.rotary_dim:
        return 0
    table = model.max_position_embeddings * model.rotary_dim * training.dtype.bytes
    return 2 * model.num_hidden_layers * table
