"""Which attention kernel runs, and how large cuBLAS's workspaces are: what depends on the card's generation."""

from __future__ import annotations

from typing import NamedTuple

from peftbench.base.units import KIB
from peftbench.estimate.peft_forward.virtual_tokens import is_prefix
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.recipe.dtype import DType
from peftbench.inputs.recipe.training import TrainingSpec

AMPERE = (8, 0)
HOPPER = (9, 0)
FLASH_MAX_HEAD_DIM = 256


class Kernels(NamedTuple):
    """What a card implies for the layers of a recipe."""

    attention: str = "flash"
    """"flash", "efficient", "math", "eager" or "cpu"."""
    grouped_mm: bool = True
    """All experts are multiplied at once: from Ampere on."""


def kernels_of(model: ModelSpec, training: TrainingSpec, gpu: GpuSpec | None) -> Kernels:
    """The kernels that run this model's layers on the card."""
    return Kernels(
        attention_kernel(model, training, gpu), not model.num_experts or compute_capability(gpu) >= AMPERE
    )


def compute_capability(gpu: GpuSpec | None) -> tuple[int, int]:
    """The card's generation; an unnamed card is taken as Ampere."""
    return AMPERE if gpu is None or gpu.compute_capability is None else gpu.compute_capability


def attention_kernel(model: ModelSpec, training: TrainingSpec, gpu: GpuSpec | None) -> str:
    """The kernel behind attn_implementation: "flash", "efficient", "math" or "eager"; or "cpu".

    SDPA takes flash attention for 16-bit types on compute capability 8.0 and newer, heads of up to 256 channels and
    no mask; then memory-efficient attention, which cannot share key heads among query heads; then the unfused math,
    which keeps scores of every pair of tokens. A grouped-query model on a T4 ends there.
    Source: sdp_utils.cpp in pytorch/aten/src/ATen/native/transformers/cuda; use_gqa_in_sdpa in transformers.
    """
    if training.attention == "eager" or (training.attention == "sdpa" and not model.family.sdpa):
        return "eager"
    if training.attention == "flash_attention_2":
        return "flash"
    if gpu is not None and gpu.is_cpu:
        return "cpu"
    if is_prefix(training.adapter):  # more keys than queries: SDPA gets a mask, and key heads are copied
        return "efficient"
    if model.family.always_masked:  # a single key head comes unrepeated
        return "math" if model.num_key_value_heads == 1 < model.num_attention_heads else "efficient"
    if training.padded:  # transformers gives SDPA a mask, and copies key heads then
        return "efficient"
    small_heads = model.head_dim <= FLASH_MAX_HEAD_DIM
    if computes_in_half(training) and small_heads and compute_capability(gpu) >= AMPERE:
        return "flash"
    grouped = model.num_key_value_heads != model.num_attention_heads
    return "math" if grouped and small_heads else "efficient"


def computes_in_half(training: TrainingSpec) -> bool:
    """Whether queries and keys reach attention in a 16-bit type.

    Without autocast, prepare_model_for_kbit_training's float32 norms make the whole stream float32.
    """
    if training.autocast:
        return True
    upcast = training.quantization is not None and training.quantization.upcast_unquantized
    return training.dtype is not DType.FLOAT32 and not upcast


def masks_sliding_layers(model: ModelSpec, training: TrainingSpec) -> bool:
    """Whether SDPA gets an explicit mask in sliding-window layers: from sequences as long as the window on.

    Source: _ignore_causal_mask_sdpa in transformers/masking_utils.py.
    """
    window = model.sliding_window
    reaches = window is not None and training.sequence_length >= window
    return bool(model.sliding_layers) and reaches and training.attention == "sdpa"


def cublas_workspace_bytes(gpu: GpuSpec | None) -> int:
    """One workspace for the handle of the main thread and one for autograd's.

    8.125 MiB each, 32 MiB from Hopper on. Source: getChosenWorkspaceSize in
    pytorch/aten/src/ATen/cuda/CublasHandlePool.cpp. A CPU has none.
    """
    if gpu is not None and gpu.is_cpu:
        return 0
    each = 4096 * 8 * KIB if compute_capability(gpu) >= HOPPER else (4096 * 2 + 16 * 8) * KIB
    return 2 * each
