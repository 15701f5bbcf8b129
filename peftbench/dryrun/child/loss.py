"""Losses that the installed transformers does not have: those of its older versions, and of kernels for cards only.

A kernel cannot run on fake tensors, so a stand-in makes and keeps the tensors that it makes and keeps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from peftbench.estimate.forward.generations import loss_variant
from peftbench.estimate.forward.loss import CHUNKS
from peftbench.inputs.model.family import find_family
from peftbench.inputs.recipe import TrainingSpec

LossFunction = Callable[..., Any]


def install_loss(causal_lm: Any, recipe: TrainingSpec) -> None:
    """Let the model compute its loss as the recipe says; transformers' own stays untouched."""
    variant = loss_variant(find_family(causal_lm.config.model_type), recipe)
    if drops_logits(recipe):
        _take_over_head(causal_lm, _liger if variant == "liger" else _chunked)
    elif variant != "transformers":
        if variant.startswith("rebound"):
            head_of(causal_lm).register_forward_hook(lambda module, args, out: out.float())
        causal_lm.loss_function = _ON_LOGITS[variant]


def drops_logits(recipe: TrainingSpec) -> bool:
    """Whether the loss takes the hidden states, so that no logits are among the outputs."""
    return recipe.loss in ("liger", "chunked")


def head_of(module: Any) -> Any:
    """The module that makes the logits; None where the module itself is no model."""
    found = getattr(module, "get_output_embeddings", None)
    return found() if found else None


def _take_over_head(causal_lm: Any, loss: LossFunction) -> None:
    """Pass the hidden states through the head untouched: the loss applies it, piece by piece."""
    head = head_of(causal_lm)
    assert head is not None
    apply = head.forward
    if hasattr(causal_lm.config, "final_logit_softcapping"):
        causal_lm.config.final_logit_softcapping = None  # the kernel caps what it computes

    def on_hidden_states(logits: torch.Tensor, labels: torch.Tensor, vocab_size: Any = None, **_: Any) -> Any:
        head.forward = apply
        try:
            return loss(head, logits.view(-1, logits.shape[-1]), _shifted_labels(labels))
        finally:
            head.forward = _unchanged

    head.forward = _unchanged
    causal_lm.loss_function = on_hidden_states


def _unchanged(hidden_states: torch.Tensor) -> torch.Tensor:
    return hidden_states


def _shifted_labels(labels: torch.Tensor) -> torch.Tensor:
    return F.pad(labels, (0, 1), value=-100)[..., 1:].contiguous().view(-1)


# ── losses on logits ────────────────────────────────────────────────────────────────────────────────────────────────


def _shift(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What transformers did before version 5: a copy of all logits but the last."""
    shifted = logits[..., :-1, :].contiguous()
    return shifted.view(-1, shifted.shape[-1]), labels[..., 1:].contiguous().view(-1)


class _FusedCrossEntropy(torch.autograd.Function):
    """A kernel that writes the gradient over the logits. Source: LigerCrossEntropyFunction, liger-kernel."""

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        losses = torch.zeros(logits.shape[0], dtype=torch.float32, device=logits.device)
        ctx.save_for_backward(logits.detach())
        return losses.sum()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[torch.Tensor, None]:
        (logits,) = ctx.saved_tensors
        return logits, None


def _on_shifted(loss: LossFunction, upcast: bool) -> LossFunction:
    """A loss function of transformers on logits without the last token, which are cast to float32 first or not."""

    def on_logits(logits: torch.Tensor, labels: torch.Tensor, vocab_size: Any = None, **_: Any) -> Any:
        logits = logits.float() if upcast else logits
        return loss(*_shift(logits, labels))

    return on_logits


def _fused_5(logits: torch.Tensor, labels: torch.Tensor, vocab_size: Any = None, **_: Any) -> Any:
    return _FusedCrossEntropy.apply(logits.float().view(-1, logits.shape[-1]), _shifted_labels(labels))


_ON_LOGITS: dict[str, LossFunction] = {
    "transformers-4": _on_shifted(F.cross_entropy, upcast=True),  # ForCausalLMLoss of transformers 4.48
    "rebound": _on_shifted(F.cross_entropy, upcast=False),  # the head upcasts
    "rebound-fused": _on_shifted(_FusedCrossEntropy.apply, upcast=False),
    "shifted": _on_shifted(F.cross_entropy, upcast=False),  # classes of GPT-2 and its relatives
    "shifted-fused": _on_shifted(_FusedCrossEntropy.apply, upcast=False),
    "fused": _on_shifted(_FusedCrossEntropy.apply, upcast=True),
    "fused-5": _fused_5,
}


# ── losses that apply the head themselves ───────────────────────────────────────────────────────────────────────────


def _chunked(head: nn.Module, hidden_states: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Source: CEWithChunkedOutputLoss of torchtune, whose model applies the head to each chunk of the tokens."""
    logits = [head(chunk) for chunk in hidden_states.chunk(CHUNKS)]
    pairs = zip(logits, labels.chunk(CHUNKS), strict=True)
    return torch.stack([F.cross_entropy(chunk.float(), target, reduction="sum") for chunk, target in pairs]).sum()


def _liger(head: Any, hidden_states: torch.Tensor, labels: torch.Tensor) -> Any:
    if torch.is_autocast_enabled(hidden_states.device.type):  # amp_custom_fwd: the kernel runs in the half type
        hidden_states = hidden_states.to(torch.get_autocast_dtype(hidden_states.device.type))
    return _FusedLinearCrossEntropy.apply(hidden_states, head.weight, labels)


class _FusedLinearCrossEntropy(torch.autograd.Function):
    """Logits and their gradient for one chunk of tokens at a time; the gradients are ready after forward.

    Source: fused_linear_cross_entropy_forward, liger-kernel ops/fused_linear_cross_entropy.py.
    """

    @staticmethod
    def forward(ctx: Any, hidden_states: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        tokens, hidden = hidden_states.shape
        parts = -(-weight.shape[0] // hidden)
        size = 1 << (-(-tokens // parts) - 1).bit_length()
        gradient = torch.zeros_like(hidden_states)
        weight_gradient = torch.zeros_like(weight) if weight.requires_grad else None
        losses = torch.zeros(tokens, dtype=torch.float32, device=hidden_states.device)
        for start in range(0, tokens, size):
            chunk = hidden_states[start : start + size]
            logits = chunk @ weight.t().to(chunk.dtype)
            gradient[start : start + size] = logits @ weight.to(chunk.dtype)
            if weight_gradient is not None:
                weight_gradient += torch.mm(logits.t(), chunk).float()
        ctx.save_for_backward(gradient.detach(), weight_gradient)
        return losses.sum()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[torch.Tensor, torch.Tensor | None, None]:
        gradient, weight_gradient = ctx.saved_tensors
        return gradient, weight_gradient, None
