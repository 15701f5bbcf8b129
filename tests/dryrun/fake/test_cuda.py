"""Training steps on fake cuda tensors, each in a process of its own: the patch is process-wide and may crash."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
if torch.cuda.is_available():
    HOW = "native"
elif sys.platform == "linux":
    HOW = "patched"
else:
    pytest.skip("fake cuda tensors need Linux or a card", allow_module_level=True)

START = """
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint
from peftbench.dryrun.fake.cuda import FakeCudaError, install, verify

def empty(*shape, **kwargs):
    return torch.empty(*shape, device="cuda", **{"requires_grad": True, **kwargs})

def said(call):
    try:
        call()
    except FakeCudaError as error:
        return error.what
"""


def run(code: str, install: bool = True) -> list[str]:
    """Run the code in a process, which must end well and without a warning, and return the lines that it prints."""
    call = "mode = FakeTensorMode(); print(install())\n" if install else ""
    command = [sys.executable, "-W", "error", "-c", START + call + code]
    child = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert child.returncode == 0, child.stderr
    lines = child.stdout.splitlines()
    if install:
        assert lines.pop(0) == HOW
    return lines


def test_gradients_are_on_cuda_in_the_dtype_of_their_parameters() -> None:
    assert run("""
with mode:
    for dtype in (torch.float32, torch.bfloat16):
        layer = nn.Linear(4, 8, device="cuda", dtype=dtype)
        layer(empty(2, 4, dtype=dtype)).sum().backward()
        print(layer.weight.grad.device, layer.weight.grad.dtype, *layer.weight.grad.shape, layer.bias.grad.dtype)
""") == ["cuda:0 torch.float32 8 4 torch.float32", "cuda:0 torch.bfloat16 8 4 torch.bfloat16"]


@pytest.mark.slow
def test_gradients_of_branches_and_of_repeated_backward_accumulate() -> None:
    assert run("""
with mode:
    x = empty(4)
    for _ in range(2):
        y = x * 2
        (y.sin() + y.cos() + y * x).sum().backward()
    print(x.grad.device, *x.grad.shape)
    (grad,) = torch.autograd.grad((x**3).sum(), x, create_graph=True)
    grad.sum().backward()
    host = torch.empty(4, requires_grad=True)
    (host.to("cuda") * x).sum().cpu().backward()
    print(host.grad.device)
""") == ["cuda:0 4", "cpu"]


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpoint_runs_forward_twice(use_reentrant: bool) -> None:
    assert run(f"""
calls = []
with mode:
    layer, x = nn.Linear(4, 4, device="cuda"), empty(2, 4)
    block = lambda x: calls.append(torch.is_grad_enabled()) or layer(x).sin()
    checkpoint(block, x, use_reentrant={use_reentrant}).sum().backward()
    print(len(calls), x.grad.device, layer.weight.grad.device)
""") == ["2 cuda:0 cuda:0"]


def test_autocast_takes_effect_once_a_card_is_claimed() -> None:
    """And creating tensors does not reach for the card that is claimed."""
    assert run("""
torch.cuda.is_available = torch.cuda.is_bf16_supported = lambda *_: True
with mode:
    layer, scale = nn.Linear(4, 4, device="cuda"), torch.tensor(2.0, device="cuda:0")
    with torch.autocast("cuda", dtype=torch.bfloat16):
        product = layer(empty(2, 4))
        normed = nn.functional.layer_norm(product, (4,))
    (normed * scale).sum().backward()
    print(product.dtype, normed.dtype, layer.weight.grad.dtype)
""") == ["torch.bfloat16 torch.float32 torch.float32"]


def test_kernels_are_those_of_cuda() -> None:
    assert run("""
with mode:
    print(nn.functional.dropout(empty(4), 0.1).grad_fn.name())
    weight = nn.Parameter(empty(4, 4))
    for options in ({"fused": True}, {"foreach": True}, {"foreach": False}):
        optimizer = torch.optim.AdamW([weight], **options)
        (weight @ weight).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        print(optimizer.state[weight]["exp_avg"].device)
""") == ["NativeDropoutBackward0", "cuda:0", "cuda:0", "cuda:0"]


@pytest.mark.slow
def test_hooks_functions_views_and_in_place_operations() -> None:
    assert run("""
class Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * 2
    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.saved_tensors[0]

with mode:
    x = empty(4, 4)
    x.register_hook(lambda grad: print("tensor hook"))
    x.register_post_accumulate_grad_hook(lambda x: print("accumulated", x.grad.device))
    y = Double.apply(x)
    y.view(16)[2:10].mul_(2)
    y[0].add_(1)
    y.t().sum().backward()
""") == ["tensor hook", "accumulated cuda:0"]


def test_backward_runs_in_the_thread_of_the_device_or_in_the_callers() -> None:
    assert run("""
import threading
main = threading.get_ident()
with mode:
    for threaded in (True, False):
        x = empty(4)
        y = x * 2
        y.register_hook(lambda grad: print(threading.get_ident() == main))
        with torch.autograd.set_multithreading_enabled(threaded):
            y.sum().backward()
""") == ["False", "True"]


@pytest.mark.slow
def test_install_is_idempotent_and_can_be_verified_again() -> None:
    assert run("print(install()); verify(); print(install())") == [HOW, HOW]


def test_importing_patches_nothing() -> None:
    assert run("""
from torch._subclasses import fake_tensor
print(FakeTensorMode.avoid_device_init.fget.__module__, fake_tensor.init_gpu_context.__module__)
print(torch.accelerator.current_accelerator(), torch.cuda.is_available())
""", install=False) == [
        "torch._subclasses.fake_tensor torch._subclasses.fake_tensor",
        f"{torch.accelerator.current_accelerator()} {torch.cuda.is_available()}",
    ]  # fmt: skip


patched = pytest.mark.skipif(HOW != "patched", reason="a card needs no patch")


@patched
@pytest.mark.parametrize(
    ("name", "symbol"), [("c10", "device_guard_impl_registry"), ("torch_cpu", "_ZN2at6detail12getCUDAHooksEv")]
)
def test_a_library_without_the_symbol_is_refused(tmp_path: Path, name: str, symbol: str) -> None:
    """A small library of torch's lies where the one with the symbol is looked for."""
    lib = Path(torch.__file__).parent / "lib"
    for each in ("c10", "torch_cpu"):
        stem = "torch_global_deps" if each == name else each
        (tmp_path / f"lib{each}.so").symlink_to(lib / f"lib{stem}.so")
    said = refusal_with_libraries_in(tmp_path)
    assert said.startswith(f"No fake cuda tensors with torch {torch.__version__} on linux")
    assert symbol in said


@patched
def test_a_missing_library_is_refused(tmp_path: Path) -> None:
    assert "libc10.so" in refusal_with_libraries_in(tmp_path)


def refusal_with_libraries_in(folder: Path) -> str:
    patch = f"import pathlib; from peftbench.dryrun import fake_cuda as f; f._LIBRARIES = pathlib.Path({str(folder)!r})"
    (said,) = run(f"{patch}; print(said(install))", install=False)
    return said


@patched
def test_another_platform_is_refused() -> None:
    (said,) = run("import platform; platform.machine = lambda: 'riscv64'; print(said(install))", install=False)
    assert "riscv64" in said and "Linux x86-64" in said


@patched
def test_a_backward_before_it_is_refused() -> None:
    """The engine has counted no device by then, and never counts again."""
    (said,) = run("torch.ones(1, requires_grad=True).backward(); print(said(install))", install=False)
    assert "device_ready_queues_" in said
