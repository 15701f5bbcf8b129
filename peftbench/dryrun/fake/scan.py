"""Layers that have kernels in packages of their own: what transformers runs where these are not installed.

It has a function of torch operations beside every kernel of mamba-ssm, causal-conv1d and fla. That of the selective
scan takes one token after another, which on fake tensors would take minutes a layer: its loop is run at once here.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import nn

from peftbench.inputs.model.parts import without_kernels

PIECES = 32
"""Parts of a sequence whose states are made together: enough that one of them weighs nothing."""


@contextmanager
def torch_paths(model: nn.Module, notes: list[str]) -> Iterator[None]:
    """Let the model's layers run without those kernels, and note the packages that would have been called."""
    called: set[str] = set()
    modelings = {sys.modules[type(module).__module__] for module in model.modules()}
    patches = [mock.patch.multiple(modeling, **found) for modeling in modelings if (found := _paths(modeling, called))]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in patches:
            patch.stop()
    if called:
        notes.append(without_kernels(called))


def _paths(modeling: Any, called: set[str]) -> dict[str, Any]:
    """For each function of a model's file that stands beside a kernel, one of torch that notes its package."""
    paths: dict[str, Any] = {}
    for name, function in vars(modeling).items():
        if inspect.isfunction(function) and hasattr(function, "__wrapped__"):
            package = inspect.getclosurevars(function).nonlocals.get("package")
            if isinstance(package, str):
                paths[name] = _noting(function.__wrapped__, package, called)
    return paths


def _noting(of_torch: Callable[..., Any], package: str, called: set[str]) -> Callable[..., Any]:
    hub: Any = import_module("transformers.integrations.hub_kernels")
    distribution = getattr(hub, "_PACKAGE_TO_DISTRIBUTION", {}).get(package, package).replace("_", "-")
    run = _selective_scan if of_torch.__name__ == "mamba_selective_scan" else of_torch
    known = inspect.signature(of_torch).parameters

    def noting(*args: Any, **kwargs: Any) -> Any:
        called.add(distribution)
        return run(*args, **{key: value for key, value in kwargs.items() if key in known})

    return noting


def _selective_scan(
    hidden_states: Any, dt: Any, A: Any, B: Any, C: Any, D: Any = None, z: Any = None, delta_bias: Any = None,
    delta_softplus: bool = False, return_last_state: bool = False, **_: Any,
) -> Any:  # fmt: skip
    """mamba_selective_scan of transformers' Mamba, line by line, but for its loop; (batch, channels, tokens)."""
    if delta_bias is not None:
        dt = dt + delta_bias.to(dt.dtype)[..., None]
    if delta_softplus:
        dt = F.softplus(dt)
    B, C = B.transpose(1, 2), C.transpose(1, 2)
    discrete_A = torch.exp(A[None, :, None, :] * dt[:, :, :, None])
    discrete_B = dt[:, :, :, None] * B[:, None, :, :].float()
    deltaB_u = discrete_B * hidden_states[:, :, :, None].float()
    scan_output = _loop(discrete_A, deltaB_u, C, hidden_states.dtype)
    if D is not None:
        scan_output = scan_output + hidden_states * D[None, :, None]
    if z is not None:
        scan_output = scan_output * F.silu(z)
    return (scan_output, deltaB_u.new_empty(deltaB_u[:, :, 0].shape)) if return_last_state else scan_output


def _loop(discrete_A: torch.Tensor, deltaB_u: torch.Tensor, C: torch.Tensor, dtype: torch.dtype) -> Any:
    """What all tokens give, (batch, channels, tokens); their states are kept as autograd keeps those of a loop.

    Some tokens at a time, since checkpointing drops a state before the next one is made.
    """
    keep: Any = _States.apply
    spread: Any = _Spread.apply
    if torch.is_grad_enabled():
        for tokens in deltaB_u.detach().chunk(PIECES, dim=2):
            discrete_A = keep(discrete_A, tokens.shape, dtype)
    outputs = [deltaB_u.new_empty(deltaB_u.shape[:3], dtype=dtype)]  # which torch.stack copies
    return spread(discrete_A, deltaB_u, C, torch.cat(outputs))


class _States(torch.autograd.Function):
    """The states of some tokens, in float32 and in the dtype of their product with C."""

    @staticmethod
    def forward(ctx: Any, passed: torch.Tensor, shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
        states = passed.new_empty(shape, dtype=torch.float32)
        ctx.save_for_backward(states, states.to(dtype))
        return passed.view_as(passed)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0], None, None


class _Spread(torch.autograd.Function):
    """Each token's gradient is spread over zeros as large as all, and added to those of the tokens after it."""

    @staticmethod
    def forward(
        ctx: Any, discrete_A: torch.Tensor, deltaB_u: torch.Tensor, C: torch.Tensor, outputs: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(discrete_A, C)
        return outputs.view_as(outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        discrete_A, C = ctx.saved_tensors
        of_A, of_B, of_C = torch.zeros_like(discrete_A), torch.zeros_like(discrete_A), torch.zeros_like(C)
        torch.zeros_like(discrete_A)  # the next token's, before it is added
        return of_A, of_B, of_C, None
