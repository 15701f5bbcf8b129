"""Make `device="cuda"` work, forward and backward, under torch's FakeTensorMode on a machine without a GPU.

A fake tensor has a shape, a dtype and a device but no data, so it needs no card; autograd does. Torch's own objects
stand in for it, but two answers of `CUDAHooks` have to be changed in its virtual table. Tried first, without that:

* nothing: the first operation on a leaf aborts the process, "PyTorch is not linked with support for cuda devices"; on a
  CUDA wheel backward raises "hasPrimaryContext expects a valid device index, but got device_index=0".
* a device guard alone, with and without `set_multithreading_enabled(False)`: "Cannot access accelerator device when
  none is available", since the engine asks the accelerator (`at::getAccelerator`) for a stream for every cuda tensor.
* PrivateUse1 as accelerator, with hooks and guard written in Python: "opt_ready_stream && opt_parent_stream INTERNAL
  ASSERT FAILED", since a node has a stream only if its tensors are of the accelerator's type. Renamed to cuda: "Cannot
  register privateuse1 backend with in-tree device name: cuda". A Python guard serves PrivateUse1, whatever its `type_`.
* xpu, mtia, mps, hip: the same abort; hpu: torch has no such module. For the libraries these are not cuda either.
* telling C++ `meta` and Python `cuda`: backward runs, but autocast does nothing and dropout is not native_dropout.
* compiled autograd on the guard: "view_fn not supported by compiled autograd", and it keeps tensors as a graph would.
* walking `grad_fn.next_functions` in Python: no tensor hooks, no checkpoint, "'FBackward' object is not callable".

Verified on Linux x86-64 without a GPU: torch 2.13.0+cpu and 2.14.1+cu130. Not verified: aarch64, a card ("native").
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import platform
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch._subclasses import fake_tensor
from torch.utils.checkpoint import checkpoint

from peftbench.base.errors import PeftbenchError

_LIBRARIES = Path(torch.__file__).parent / "lib"
_TABLE_WORDS, _HEADER_BYTES = 64, 16  # of a virtual table in the Itanium C++ ABI; torch 2.13 and 2.14 fill 50 words
_CANDIDATES = range(4, 12)  # after header and two destructors: isBuilt, isAvailable, hasPrimaryContext in 2.13 and 2.14


class FakeCudaError(PeftbenchError):
    """This torch on this machine cannot trace a training step on fake cuda tensors."""


@functools.cache
def install() -> str:
    """Make device="cuda" usable under FakeTensorMode in this process, for good; return "native" or "patched".

    Call it after importing transformers, peft and bitsandbytes, which look for real devices, and before any backward:
    the autograd engine counts devices once. A wrong guess about torch may crash: give it a process of its own.
    """
    try:
        how = "native" if _open_gpu() else _patch()
    except (AttributeError, OSError, RuntimeError, ValueError) as error:  # no such symbol, library or slot
        raise _refusal(error) from error
    verify()
    atexit.register(time.sleep, 0.1)  # an engine thread that frees its last graph after Python is gone aborts
    return how


def verify() -> None:
    """Try what a training step needs on fake cuda tensors; FakeCudaError if anything is not as on a card."""
    try:
        for use_reentrant in (False, True):
            _train(use_reentrant)
    except Exception as error:
        raise _refusal(error) from error


def _open_gpu() -> bool:
    """Whether there is a card; if so, give it the context that backward asks for: fake tensors would not."""
    count = getattr(torch._C, "_cuda_getDeviceCount", None)  # not torch.cuda.is_available(), which others patch
    found = count is not None and count() > 0
    if found:
        torch.empty(1, device="cuda")
    return found


def _patch() -> str:
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"):
        raise RuntimeError("the layout of virtual tables is known on Linux x86-64 and aarch64 only")
    # fake tensors would create real ones on the card as soon as somebody patches torch.cuda.is_available()
    fake_tensor.FakeTensorMode.avoid_device_init = property(lambda mode: True)  # type: ignore[assignment, method-assign]
    fake_tensor.init_gpu_context = lambda device: None  # type: ignore[assignment]
    _set_device_guard()
    table = _copy_hooks_table()
    if torch._C._accelerator_getAccelerator() is None:  # no CUDA wheel
        _say_yes(table, _check_accelerator)
    _say_yes(table, _train)
    return "patched"


def _set_device_guard() -> None:
    """Let torch register its FakeGuardImpl<CUDA>: every node asks the guard of its device for a stream.

    torch only replaces a guard that counts no devices: a CUDA wheel has one, else Lazy's is put there for a moment.
    """
    types = torch._C._autograd.DeviceType
    cuda, lazy = types.CUDA.value, types.Lazy.value  # type: ignore[attr-defined]
    guards = (ctypes.c_void_p * (lazy + 1)).in_dll(_library("c10"), "_ZN3c104impl26device_guard_impl_registryE")
    before = guards[cuda]
    guards[cuda] = before or guards[lazy]
    torch._C._ensureCUDADeviceGuardSet()
    if guards[cuda] in (None, guards[lazy]):
        guards[cuda] = before
        raise RuntimeError("torch set no device guard for cuda")


def _copy_hooks_table() -> ctypes.Array[ctypes.c_void_p]:
    """Give torch's CUDAHooks object its own copy of its virtual table, which is shared and read-only."""
    get_hooks = _library("torch_cpu")._ZN2at6detail12getCUDAHooksEv
    get_hooks.restype = ctypes.c_void_p
    pointer = ctypes.c_size_t.from_address(get_hooks())  # an object begins with the address of its table
    table = (ctypes.c_void_p * _TABLE_WORDS)()
    ctypes.memmove(table, pointer.value - _HEADER_BYTES, ctypes.sizeof(table))
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(table))  # the object outlives Python
    pointer.value = ctypes.addressof(table) + _HEADER_BYTES
    return table


def _say_yes(table: ctypes.Array[ctypes.c_void_p], attempt: Callable[[], None]) -> None:
    """Find the one word of the table whose function has to return true for `attempt` to succeed, and leave it so.

    The functions have no exported names to look up. hasOpenMP() takes nothing and returns true, which is all that is
    needed; one of torch's own needs neither Python nor its lock in the engine's threads.
    """
    yes = _library("torch_cpu")._ZN2at7Context9hasOpenMPEv
    if not yes() & 1:
        raise RuntimeError("at::Context::hasOpenMP() is false")
    reasons: dict[str, None] = {}
    for word in _CANDIDATES:
        kept, table[word] = table[word], ctypes.cast(yes, ctypes.c_void_p)
        try:
            attempt()
            return
        except Exception as error:
            table[word] = kept
            reasons[_first_line(error)] = None
    raise RuntimeError(f"no function of at::CUDAHooksInterface helps: {'; '.join(reasons)}")


def _library(name: str) -> ctypes.CDLL:
    return ctypes.CDLL(str(_LIBRARIES / f"lib{name}.so"))


def _check_accelerator() -> None:
    """at::getAccelerator() is cuda once isBuilt() says so; without it backward finds no stream."""
    if torch._C._accelerator_getAccelerator() != torch.device("cuda"):
        raise RuntimeError("another accelerator than cuda")


def _train(use_reentrant: bool = False) -> None:
    """Linear, checkpoint, dropout, autocast and branches; RuntimeError unless forward and backward are as on a card.

    Backward asks hasPrimaryContext() of each device, which throws where there is none.
    """
    with fake_tensor.FakeTensorMode():
        layer, inputs = torch.nn.Linear(4, 4, device="cuda"), torch.empty(2, 4, device="cuda", requires_grad=True)
        hidden = checkpoint(layer, inputs, use_reentrant=use_reentrant, preserve_rng_state=False)  # a card has the RNG
        dropped = torch.nn.functional.dropout(hidden, 0.1)
        with _autocast(torch.bfloat16):
            product = dropped @ inputs.T
        (product.sum() + hidden.sin().sum() + hidden.sum()).backward()
    found = [(t.dtype, t.device.type) for t in (product, layer.weight.grad, inputs.grad) if t is not None]
    if found != [(torch.bfloat16, "cuda"), (torch.float32, "cuda"), (torch.float32, "cuda")]:
        raise RuntimeError(f"product and gradients are {found}")
    if "NativeDropout" not in str(dropped.grad_fn):
        raise RuntimeError(f"dropout is {dropped.grad_fn}")


@contextlib.contextmanager
def _autocast(dtype: torch.dtype) -> Iterator[None]:
    """The switches below torch.autocast("cuda"), which refuses while torch.cuda.is_available() says no."""
    before = torch.get_autocast_dtype("cuda")
    torch.set_autocast_dtype("cuda", dtype)
    torch.set_autocast_enabled("cuda", True)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", False)
        torch.set_autocast_dtype("cuda", before)
        torch.clear_autocast_cache()


def _refusal(error: Exception) -> FakeCudaError:
    where = f"torch {torch.__version__} on {sys.platform} {platform.machine()}"
    hint = "Plan without --dry-run, or use torch 2.13.0 on Linux."
    return FakeCudaError(f"No fake cuda tensors with {where}: {_first_line(error)}", hint)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
