"""Training steps on fake cuda tensors, in processes of their own: the patch is process-wide and may crash."""

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


STEPS = {
    "gradients are on cuda in the dtype of their parameters": ("""
with mode:
    for dtype in (torch.float32, torch.bfloat16):
        layer = nn.Linear(4, 8, device="cuda", dtype=dtype)
        layer(empty(2, 4, dtype=dtype)).sum().backward()
        print(layer.weight.grad.device, layer.weight.grad.dtype, *layer.weight.grad.shape, layer.bias.grad.dtype)
""", ["cuda:0 torch.float32 8 4 torch.float32", "cuda:0 torch.bfloat16 8 4 torch.bfloat16"]),
    "gradients of branches and of repeated backward accumulate": ("""
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
""", ["cuda:0 4", "cpu"]),
    "checkpoint runs forward twice": ("""
with mode:
    for use_reentrant in (False, True):
        calls = []
        layer, x = nn.Linear(4, 4, device="cuda"), empty(2, 4)
        block = lambda x: calls.append(torch.is_grad_enabled()) or layer(x).sin()
        checkpoint(block, x, use_reentrant=use_reentrant).sum().backward()
        print(len(calls), x.grad.device, layer.weight.grad.device)
""", ["2 cuda:0 cuda:0"] * 2),
    "kernels are those of cuda": ("""
with mode:
    print(nn.functional.dropout(empty(4), 0.1).grad_fn.name())
    weight = nn.Parameter(empty(4, 4))
    for options in ({"fused": True}, {"foreach": True}, {"foreach": False}):
        optimizer = torch.optim.AdamW([weight], **options)
        (weight @ weight).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        print(optimizer.state[weight]["exp_avg"].device)
""", ["NativeDropoutBackward0", "cuda:0", "cuda:0", "cuda:0"]),
    "hooks, functions, views and operations in place": ("""
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
""", ["tensor hook", "accumulated cuda:0"]),
    "backward runs in the thread of the device or in the caller's": ("""
import threading
main = threading.get_ident()
with mode:
    for threaded in (True, False):
        x = empty(4)
        y = x * 2
        y.register_hook(lambda grad: print(threading.get_ident() == main))
        with torch.autograd.set_multithreading_enabled(threaded):
            y.sum().backward()
""", ["False", "True"]),
    "install is idempotent and can be verified again": ("print(install()); verify(); print(install())", [HOW, HOW]),
    # last, for what it claims stays claimed; creating tensors does not reach for the card that is claimed
    "autocast takes effect once a card is claimed": ("""
torch.cuda.is_available = torch.cuda.is_bf16_supported = lambda *_: True
with mode:
    layer, scale = nn.Linear(4, 4, device="cuda"), torch.tensor(2.0, device="cuda:0")
    with torch.autocast("cuda", dtype=torch.bfloat16):
        product = layer(empty(2, 4))
        normed = nn.functional.layer_norm(product, (4,))
    (normed * scale).sum().backward()
    print(product.dtype, normed.dtype, layer.weight.grad.dtype)
""", ["torch.bfloat16 torch.float32 torch.float32"]),
}  # fmt: skip
"""Programs with what they print."""


def run(*programs: str) -> list[list[str]]:
    """The lines that each program prints; one process runs all, and must end well and without a warning."""
    between = "\nprint('\\0')\n"
    command = [sys.executable, "-W", "error", "-c", START + between.join(programs)]
    child = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert child.returncode == 0, child.stderr
    return [part.splitlines() for part in child.stdout.split("\0\n")]


@pytest.fixture(scope="module")
def printed() -> dict[str, list[str]]:
    """What the programs print, by name."""
    how, *outputs = run("mode = FakeTensorMode(); print(install())", *(code for code, _ in STEPS.values()))
    assert how == [HOW]
    return dict(zip(STEPS, outputs, strict=True))


@pytest.mark.parametrize("name", STEPS)
def test_it_runs_as_on_a_card(printed: dict[str, list[str]], name: str) -> None:
    assert printed[name] == STEPS[name][1]


# ── before it, and where it cannot be ───────────────────────────────────────────────────────────────────────────────

MISSING = {"c10": "device_guard_impl_registry", "torch_cpu": "_ZN2at6detail12getCUDAHooksEv"}
"""A symbol by the library that has to have it."""


def libraries_without(folder: Path, name: str) -> Path:
    """A small library of torch's lies where the one with the symbol is looked for."""
    lib = Path(torch.__file__).parent / "lib"
    folder.mkdir()
    for each in MISSING:
        stem = "torch_global_deps" if each == name else each
        (folder / f"lib{each}.so").symlink_to(lib / f"lib{stem}.so")
    return folder


def test_importing_patches_nothing_and_install_refuses_in_words(tmp_path: Path) -> None:
    folders = [str(libraries_without(tmp_path / name, name)) for name in MISSING]
    (before, *without_symbol, without_library, elsewhere) = run(
        """
from torch._subclasses import fake_tensor
from pathlib import Path
from peftbench.dryrun.fake import cuda
import platform
print(FakeTensorMode.avoid_device_init.fget.__module__, fake_tensor.init_gpu_context.__module__)
print(torch.accelerator.current_accelerator(), torch.cuda.is_available())
right = cuda._LIBRARIES
""",
        *(f"cuda._LIBRARIES = Path({folder!r}); print(said(install))" for folder in (*folders, str(tmp_path))),
        "cuda._LIBRARIES = right; platform.machine = lambda: 'riscv64'; print(said(install))",
    )
    module = "torch._subclasses.fake_tensor"
    assert before == [f"{module} {module}", f"{torch.accelerator.current_accelerator()} {torch.cuda.is_available()}"]
    if HOW != "patched":  # a card needs no patch
        return
    for (said,), symbol in zip(without_symbol, MISSING.values(), strict=True):
        assert said.startswith(f"No fake cuda tensors with torch {torch.__version__} on linux")
        assert symbol in said
    assert "libc10.so" in without_library[0]
    assert "riscv64" in elsewhere[0] and "Linux x86-64" in elsewhere[0]


@pytest.mark.skipif(HOW != "patched", reason="a card needs no patch")
def test_a_backward_before_it_is_refused() -> None:
    """The engine has counted no device by then, and never counts again."""
    ((said,),) = run("torch.ones(1, requires_grad=True).backward(); print(said(install))")
    assert "device_ready_queues_" in said
