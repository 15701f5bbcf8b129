"""Optimizer states and step temporaries against the real optimizers, after real steps on the CPU."""

import weakref

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("bitsandbytes")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402
from transformers.trainer_optimizer import _OPTIMIZER_HANDLERS, OptimizerContext  # noqa: E402
from transformers.training_args import OptimizerNames  # noqa: E402

from peftbench.estimate.parts.optimizer import (  # noqa: E402
    NOT_DERIVED,
    OPTIMIZERS,
    RULES,
    TorchRule,
    optimizer_bytes,
)
from peftbench.estimate.parts.tensors import TensorGroup  # noqa: E402
from peftbench.inputs.recipe import DType  # noqa: E402

pytestmark = pytest.mark.oracle

SHAPES = (
    ((64, 64), 1), ((63, 65), 2), ((4096,), 1), ((4095,), 1), ((3, 40, 50), 1),
    ((400, 250), 2), ((399, 250), 1), ((1,), 3),
)  # fmt: skip


def groups(dtype: DType, shapes=SHAPES) -> tuple[TensorGroup, ...]:
    return tuple(TensorGroup("q_proj", shape, count, dtype) for shape, count in shapes)


def parameters(tensors):
    made = [torch.nn.Parameter(torch.randn(g.shape).to(getattr(torch, g.dtype)))
            for g in tensors for _ in range(g.count)]  # fmt: skip
    for parameter in made:
        parameter.grad = torch.randn_like(parameter)
    return made


def build(name, params, **extra):
    """The optimizer that the Trainer would make."""
    if name.startswith("schedule_free"):
        pytest.importorskip("schedulefree")
    arguments = transformers.TrainingArguments(output_dir="unused", optim=name, report_to=[], use_cpu=True)
    context = OptimizerContext(
        args=arguments, model=None, optim_args={}, optimizer_kwargs={"lr": 1e-3},
        adam_kwargs={"betas": (0.9, 0.999), "eps": 1e-8},
    )  # fmt: skip
    kind, kwargs = _OPTIMIZER_HANDLERS[OptimizerNames(name)](context)
    optimizer = kind(params, **kwargs, **extra)
    if name.startswith("schedule_free"):
        optimizer.train()
    return optimizer


def state_bytes(optimizer) -> int:
    """Bytes of distinct state tensors; the quantization maps are shared, scalars (step, RMS) do not count."""
    tensors = {
        value.untyped_storage().data_ptr(): value.untyped_storage().nbytes()
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor) and value.dim() > 0
    }
    return sum(tensors.values())


def test_every_name_of_the_trainer_is_priced_or_refused():
    assert {str(name.value) for name in OptimizerNames} == set(OPTIMIZERS) | set(NOT_DERIVED)


@pytest.mark.parametrize("dtype", list(DType))
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_states_after_a_step(name, dtype):
    tensors = groups(dtype)
    optimizer = build(name, parameters(tensors))
    optimizer.is_paged = False  # managed memory needs a card: the layout is the same, the place is not
    optimizer.step()
    expected = optimizer_bytes(tensors, name)
    assert expected.state_bytes + expected.paged_bytes == state_bytes(optimizer)


@pytest.mark.parametrize("name", [name for name, rule in RULES.items() if getattr(rule, "paged", False)])
def test_paged_states_are_those_that_bitsandbytes_asks_managed_memory_for(name, monkeypatch):
    """bitsandbytes decides per tensor in `get_state_buffer`; on the meta device nothing else happens."""
    tensors = groups(DType.FLOAT32)
    params = [torch.nn.Parameter(p.to("meta")) for p in parameters(tensors)]
    optimizer = build(name, params)
    asked = []

    def managed(*shape, dtype, device):
        asked.append(torch.empty(shape, dtype=dtype, device="meta"))
        return asked[-1]

    monkeypatch.setattr("bitsandbytes.functional.get_paged", managed)
    monkeypatch.setattr("bitsandbytes.functional.fill", lambda *_: None)
    for index, parameter in enumerate(params):
        optimizer.init_state(optimizer.param_groups[0], parameter, 0, index)
    assert optimizer_bytes(tensors, name).paged_bytes == sum(t.nbytes for t in asked) > 0


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of storages made inside the block and still alive; `peak` is the most at once."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        known = {id(t.untyped_storage()) for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self.add(tensor.untyped_storage(), known)
        self.peak = max(self.peak, self.now)
        return result

    def add(self, storage, known):
        key = storage._cdata
        if key not in self.seen and id(storage) not in known:
            self.seen.add(key)
            self.now += storage.nbytes()
            weakref.finalize(storage, self.remove, key, storage.nbytes())

    def remove(self, key, size):
        self.seen.discard(key)
        self.now -= size


BIG = (((300, 200), 2), ((100, 200), 1), ((500, 300), 1), ((50,), 1))


STEPPED = ["adamw_torch", "adagrad", "rmsprop", "sgd", "adafactor", "schedule_free_adamw"]


@pytest.mark.parametrize("dtype", [DType.FLOAT32, DType.BFLOAT16])
@pytest.mark.parametrize("name", STEPPED)
def test_what_a_second_step_holds_for_a_moment(name, dtype):
    tensors = groups(dtype, BIG)
    foreach = {"foreach": True} if isinstance(RULES[name], TorchRule) else {}  # the default on CUDA
    optimizer = build(name, parameters(tensors), **foreach)
    optimizer.step()
    with LiveBytes() as live:
        optimizer.step()
    expected = optimizer_bytes(tensors, name).step_temporary_bytes
    assert live.peak == pytest.approx(expected, rel=0.002, abs=200)
