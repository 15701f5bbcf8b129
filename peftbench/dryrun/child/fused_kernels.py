"""Kernels of FOAK and Liger in the layers: stand-ins that make and keep the tensors that the kernels make and keep.

Sources: liger-kernel ops/{rms_norm,rope,swiglu}.py; fms-acceleration's foak plugin has the first two.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from peftbench.inputs.recipe import TrainingSpec

GATED_MLP = ("gate_proj", "up_proj", "down_proj")
"""What an MLP has that SwiGLU's kernel takes."""


@contextmanager
def fused_kernels(causal_lm: Any, recipe: TrainingSpec) -> Iterator[None]:
    """Let the model's layers run on the recipe's kernels; rotation is a function of its module, so it is put back."""
    if recipe.fused_kernels == "none":
        yield
        return
    for module in causal_lm.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = _RmsNorm.apply
        elif recipe.fused_kernels == "liger" and all(hasattr(module, name) for name in GATED_MLP):
            module.forward = lambda x, mlp=module: mlp.down_proj(_SwiGlu.apply(mlp.gate_proj(x), mlp.up_proj(x)))
    modeling = sys.modules[type(causal_lm).__module__]
    original = getattr(modeling, "apply_rotary_pos_emb", None)
    if original is not None:
        # the kernel rotates in place, forward and backward
        modeling.apply_rotary_pos_emb = lambda query, key, *_, **__: (query, key)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        if original is not None:
            modeling.apply_rotary_pos_emb = original  # type: ignore[attr-defined]


class _RmsNorm(torch.autograd.Function):
    """Keeps its input and a deviation of each row; backward writes over the incoming gradient."""

    @staticmethod
    def forward(ctx: Any, hidden_states: torch.Tensor) -> torch.Tensor:
        deviations = torch.empty(hidden_states.shape[:-1], dtype=torch.float32, device=hidden_states.device)
        ctx.save_for_backward(hidden_states, deviations)
        return torch.empty_like(hidden_states)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0]


class _SwiGlu(torch.autograd.Function):
    """Keeps gate and up, and writes their gradients over them."""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(gate, up)
        return torch.empty_like(gate)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return ctx.saved_tensors
