"""Answer the questions that torch and transformers ask about the device as a card would answer them.

Everything here is process-wide and only happens in a process that exists for dry runs.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch._subclasses import fake_impls
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from peftbench.dryrun.fake.attention import flash_attention_2, scaled_dot_product_attention
from peftbench.dryrun.fake.card import CARD
from peftbench.dryrun.fake.cuda import install
from peftbench.dryrun.fake.streams import STREAMS


def answer_as_card() -> None:
    """Let torch.cuda, optimizers, attention and masks behave as on a card; call it once, after the imports.

    The flash-attn package cannot be installed without a card: its attention function is described instead.
    """
    install()
    for name, answer in (_CUDA | STREAMS).items():
        setattr(torch.cuda, name, answer)
    torch.accelerator.current_stream = STREAMS["current_stream"]
    _foreach()
    _kernels()
    _masks()
    _outliers()
    _grouped_products()
    _pinned_memory()
    import_module("transformers.modeling_utils").ALL_ATTENTION_FUNCTIONS["flash_attention_2"] = flash_attention_2
    torch.nn.functional.scaled_dot_product_attention = scaled_dot_product_attention
    # tensors are only described, so a device must not be opened even though one is reported
    fake_mode: Any = FakeTensorMode
    fake_mode.avoid_device_init = property(lambda mode: True)


def answer_as_host() -> None:
    """What fake CPU tensors need to stand for real ones: masks and grouped products ask for data."""
    _masks()
    _grouped_products()


def answer_as_cpu() -> None:
    """Fake CPU tensors that stand for a card: the optimizer works on lists too."""
    answer_as_host()
    _foreach()
    kernels: Any = import_module("torch.optim.optimizer")
    devices = kernels._get_foreach_kernels_supported_devices
    kernels._get_foreach_kernels_supported_devices = lambda: [*devices(), "cpu"]


_CUDA: dict[str, Any] = {
    "is_available": lambda: True,
    "is_initialized": lambda: False,
    "device_count": lambda: 1,
    "current_device": lambda: 0,
    "is_bf16_supported": lambda *_, **__: CARD.has_bfloat16,
    "get_device_capability": lambda *_: CARD.compute_capability,
    "get_device_properties": lambda *_: CARD.properties,
    "get_device_name": lambda *_: CARD.properties.name,
    "is_current_stream_capturing": lambda: False,
    "_lazy_init": lambda: None,
    "synchronize": lambda *_: None,
    "empty_cache": lambda: None,
    # checkpointing saves and restores the generator
    "get_rng_state": lambda *_: torch.zeros(16, dtype=torch.uint8),
    "set_rng_state": lambda *_: None,
}
"""Functions of torch.cuda, as a card would answer them."""


def _foreach() -> None:
    """Optimizers and clip_grad_norm_ work on lists where every tensor's type is exactly one of these."""
    for name in ("torch.optim.optimizer", "torch.utils._foreach_utils"):
        supported = import_module(name)._foreach_supported_types
        supported += [kind for kind in (FakeTensor, torch.nn.Parameter) if kind not in supported]


_LIBRARY = torch.library.Library("aten", "IMPL")


_KERNELS = ("silu_backward", "_fused_rms_norm", "mish_backward")
"""All operations that CUDA has a kernel of and that are made of others without: CompositeImplicitAutograd beside CUDA
in aten/src/ATen/native/native_functions.yaml of torch 2.13."""


def _kernels() -> None:
    """Declare the kernels that a CUDA build has, so that autograd calls them."""

    def never_runs(*_: object, **__: object) -> None:  # the modes answer before
        raise RuntimeError("a fake kernel of a card was run on real tensors")

    for name in _KERNELS:
        known = hasattr(torch.ops.aten, name)
        if known and not torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{name}", "CUDA"):
            _LIBRARY.impl(name, never_runs, "CUDA")


def _masks() -> None:
    """transformers keeps every mask while tracing, and drops it on real tensors where nothing is padded."""
    masking_utils: Any = import_module("transformers.masking_utils")
    needless = masking_utils._ignore_causal_mask_sdpa
    vars(masking_utils).update(
        is_tracing=lambda *_: False,
        fast_all=lambda mask: not CARD.padded,
        _ignore_causal_mask_sdpa=lambda *args, **kwargs: not CARD.padded and needless(*args, **kwargs),
    )


def _outliers() -> None:
    """LLM.int8() looks for columns with outliers, which depend on the data: none are found here."""

    def quantize(rows: torch.Tensor, threshold: float = 0.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        codes = torch.empty(rows.shape, device=rows.device, dtype=torch.int8)
        scales = torch.empty(rows.numel() // rows.shape[-1], device=rows.device, dtype=torch.float32)
        none = torch.empty(0, device=rows.device, dtype=torch.int64) if threshold > 0 else None
        return codes, scales, none

    def multiply(
        rows: torch.Tensor, codes: torch.Tensor, weight: torch.Tensor, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        out = torch.empty((*codes.shape[:-1], weight.shape[0]), device=rows.device, dtype=rows.dtype)
        return out, rows.new_empty(0)

    import_module("bitsandbytes")
    torch.library.register_fake("bitsandbytes::int8_vectorwise_quant", quantize, allow_override=True)
    torch.library.register_fake("bitsandbytes::int8_mixed_scaled_mm", multiply, allow_override=True)


def _pinned_memory() -> None:
    """Fake tensors know no pinned memory, in which CPU offload keeps its parts: to the card it is any of the host's."""

    def pinned(mode: Any, _: Any, tensor: Any, *__: object, **___: object) -> Any:
        with mode:
            return torch.empty_like(tensor)

    fake_impls.op_implementations_dict[torch.ops.aten._pin_memory.default] = pinned


def _grouped_products() -> None:
    """Fake tensors only know grouped_mm in bfloat16, a card multiplies float16 and float32 too, group by group.

    Source: _grouped_mm_cuda and _grouped_mm_fallback in aten/src/ATen/native/cuda/GroupedBlas.cpp.
    """

    def grouped_mm(mode: Any, _: Any, a: Any, b: Any, offs: Any = None, bias: Any = None, out_dtype: Any = None) -> Any:
        groups = offs.shape[0] if offs is not None else a.shape[0]
        rows, columns = a.shape[-2], b.shape[-1]
        flat = (a.dim() == 2) != (b.dim() == 2)
        shape = (rows, columns) if flat else (groups, rows, columns)
        with mode:
            return torch.empty(shape, dtype=out_dtype or a.dtype, device=a.device)

    fake_impls.op_implementations_dict[torch.ops.aten._grouped_mm.default] = grouped_mm
