"""scaled_dot_product_attention as a card runs it: which kernel, and what is done to its inputs before.

Without CUDA kernels torch would take the unfused path, which keeps a score for every pair of tokens.
Source: aten/src/ATen/native/transformers/{attention.cpp,cuda/sdp_utils.cpp}.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
import torch.nn.functional as F

from peftbench.dryrun.fake.card import CARD
from peftbench.estimate.parts.card import AMPERE

aten = torch.ops.aten
HALF = (torch.float16, torch.bfloat16)
FLASH_MAX_HEAD_DIM = 256
BIAS_ALIGNMENT = 16

KERNELS: Counter[str] = Counter()
"""How often each kernel was taken since the last run began."""


def scaled_dot_product_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> Any:  # fmt: skip
    """Torch's function of this name as a card runs it; query is (batch, heads, tokens, channels)."""
    if torch.is_autocast_enabled("cuda"):
        dtype = torch.get_autocast_dtype("cuda")
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
        if attn_mask is not None and attn_mask.is_floating_point():
            attn_mask = attn_mask.to(dtype)
    with torch.autocast("cuda", enabled=False):
        kernel = _kernel(query, key, value, attn_mask, is_causal)
        KERNELS[kernel] += 1
        if kernel == "flash":
            return _flash(query, key, value, dropout_p, is_causal, scale)
        if kernel == "efficient":
            return _efficient(query, key, value, attn_mask, dropout_p, is_causal, scale)
        CARD.adds_mask = True
        try:
            return aten._scaled_dot_product_attention_math(
                query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
            )[0]
        finally:
            CARD.adds_mask = False


def flash_attention_2(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: torch.Tensor | None,
    dropout: float = 0.0, scaling: float | None = None, **_: object,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """transformers' function of this name; heads come first in its inputs and third in its result.

    Softcaps, sinks and windows are done inside the kernel; batches are taken as unpadded.
    Source: flash_attention_forward in transformers/integrations/flash_attention.py.
    """
    from transformers.integrations.sdpa_attention import repeat_kv

    KERNELS["flash"] += 1
    if getattr(module, "repeats_keys", False):  # transformers up to 4.45
        key, value = (repeat_kv(tensor, module.num_key_value_groups) for tensor in (key, value))
    if query.dtype not in HALF and torch.is_autocast_enabled("cuda"):
        dtype = torch.get_autocast_dtype("cuda")
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    with torch.autocast("cuda", enabled=False):
        out = _flash(query, key, value, dropout, query.shape[-2] == key.shape[-2], scaling)
    return out.transpose(1, 2), None


def _kernel(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, is_causal: bool
) -> str:
    """The first of flash, memory-efficient and math whose conditions hold: use_flash_attention in sdp_utils.cpp."""
    channels, capability = query.shape[-1], CARD.compute_capability
    half = query.dtype in HALF
    square = query.shape[-2] == key.shape[-2]
    if (
        half and mask is None and channels <= FLASH_MAX_HEAD_DIM and value.shape[-1] == channels
        and capability >= AMPERE and (square or not is_causal) and query.dim() == 4
    ):  # fmt: skip
        return "flash"
    runs = half or query.dtype is torch.float32
    known = not (query.dtype is torch.bfloat16 and capability < AMPERE)
    aligned = channels % (8 if half else 4) == 0
    if query.dim() == 4 and query.shape[1] == key.shape[1] and runs and known and aligned:
        return "efficient"
    return "math"


def _flash(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, dropout_p: float, is_causal: bool, scale: float | None
) -> Any:
    """Channels are padded to a multiple of 8. Source: pad_last_dim in attention.cpp."""
    channels = query.shape[-1]
    padding = -channels % 8
    if padding:
        query, key, value = (F.pad(tensor, (0, padding)) for tensor in (query, key, value))
    factor = channels**-0.5 if scale is None else scale
    out = aten._scaled_dot_product_flash_attention(query, key, value, dropout_p, is_causal, False, scale=factor)[0]
    return out[..., :channels] if padding else out


def _efficient(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None,
    dropout_p: float, is_causal: bool, scale: float | None,
) -> Any:  # fmt: skip
    needs_grad = torch.is_grad_enabled() and any(t.requires_grad for t in (query, key, value))
    bias = None if mask is None else _bias(mask, query, key)
    return aten._scaled_dot_product_efficient_attention(
        query, key, value, bias, needs_grad, dropout_p, is_causal, scale=scale
    )[0]


def _bias(mask: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """A mask as numbers to add, its rows aligned to 16 elements.

    Source: convert_boolean_attn_mask and pad_bias in attention.cpp.
    """
    bias = mask
    if bias.dtype is torch.bool:
        bias = torch.zeros_like(mask, dtype=query.dtype).masked_fill_(mask.logical_not(), float("-inf"))
    width = bias.shape[-1]
    if width % BIAS_ALIGNMENT:
        bias = F.pad(bias, (0, -width % BIAS_ALIGNMENT))[..., :width]
    return bias.expand(*query.shape[:3], key.shape[2])
