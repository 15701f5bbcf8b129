"""What the CPU really allocates, by torch.profiler, in the form in which a dry run is compared with it.

The training steps are peftbench's own loop, run on real tensors: the same classes build and train the model, with
nobody recording. Run as a program, this is the worker of dry runs, its optimizers on lists as those of the real run.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterator
from importlib import import_module
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch._C._profiler import _EventType
from torch.profiler import ProfilerActivity, profile, record_function

from peftbench.dryrun.child.materialize import materialize
from peftbench.dryrun.child.model import build
from peftbench.dryrun.child.peft_model import adapt
from peftbench.dryrun.child.train import Training
from peftbench.dryrun.trace.trace import Trace
from peftbench.dryrun.workload import Workload
from peftbench.memory import Phase

MIXING = ("aten::add", "aten::add_", "aten::mul", "aten::sub", "aten::div", "aten::where")
"""Operations whose CPU kernels first cast an operand of another type; those of a card read both types."""
PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm")
"""In bfloat16 oneDNN packs the operands anew; what these operations allocate and free again is left out."""
GENERATOR_BYTES = torch.get_rng_state().nbytes
"""Checkpointing keeps the state of the CPU's generator for each layer, in host memory on a card as well."""


Begin = Callable[[str, int], None]
"""Begins a phase of a step."""


class Change(NamedTuple):
    """Bytes that were allocated in a phase of a step, or with a minus freed."""

    step: int
    phase: str
    nbytes: int


def peaks(changes: list[Change]) -> dict[tuple[int, str], int]:
    """The most bytes alive at once, by step and phase; loading aside."""
    found: dict[tuple[int, str], int] = {}
    total = 0
    for step, phase, nbytes in changes:
        before, total = total, total + nbytes
        found[step, phase] = max(found.get((step, phase), before), total)
    found.pop((0, Phase.LOAD.value), None)
    return found


def allocations(changes: list[Change], at_least: int) -> Counter[Change]:
    """Every allocation of so many bytes or more; loading aside."""
    return Counter(change for change in changes if change.nbytes >= at_least and change.phase != Phase.LOAD.value)


def traced(trace: Trace) -> list[Change]:
    """The changes of a dry run."""
    marks = trace.marks[::-1]
    changes, mark = [], marks.pop()
    for position, event in enumerate(trace.events):
        while marks and marks[-1].position <= position:
            mark = marks.pop()
        nbytes = trace.blocks[event].bytes if event >= 0 else -trace.blocks[~event].bytes
        changes.append(Change(mark.step, mark.name, nbytes))
    return changes


# ── the real run ────────────────────────────────────────────────────────────────────────────────────────────────────


class Nobody:
    """A recorder that records nothing, and gives the tensors values that a step can be computed from."""

    device_type = "cpu"

    def adopt(self, tensor: torch.Tensor, *_: object) -> None:
        """Called for each tensor of the model as it is made."""
        if tensor.is_floating_point():
            tensor.normal_(std=0.02)
        else:
            tensor.zero_()

    def is_part(self, *_: object, module: str = "") -> None:
        """Called for the tensors of an adapter, and by the loop for gradients, batches and states."""

    def mark(self, name: str, step: int) -> None:
        """Called where a phase begins."""
        _mark(name, step)


def trained(workload: Workload) -> list[Change]:
    """The changes of the workload's steps on real tensors, the loading of its weights included."""
    nobody: Any = Nobody()
    base, _ = build(workload)

    def run(mark: Begin) -> None:
        mark(Phase.LOAD, 0)
        materialize(base, workload.recipe, nobody, nobody.device_type)
        model = adapt(base, workload, nobody, nobody.device_type)
        gc.collect()
        Training(model, workload, nobody).run()

    return profiled(run)


def profiled(run: Callable[[Begin], None]) -> list[Change]:
    """The changes while this runs, after its first mark."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run(_mark)
    tree = profiler.profiler.kineto_results.experimental_event_tree()
    seen = sorted((seen for event in tree for seen in _seen(event, (), frozenset())), key=lambda seen: seen.time)
    changes: list[Change] = []
    alive: dict[int, int] = {}
    step, phase = 0, ""
    for _, mark, address, nbytes in seen:
        if mark:
            number, _, phase = mark.partition(" ")
            step = int(number)
        elif nbytes < 0:
            changes.append(Change(step, phase, -alive.pop(address, 0)))
        elif phase:
            alive[address] = nbytes
            changes.append(Change(step, phase, nbytes))
    return changes


_MARK = "mark "


def _mark(name: str, step: int) -> None:
    with record_function(f"{_MARK}{step} {name}"):
        pass


class _Seen(NamedTuple):
    """A mark, an allocation, or with a minus a release."""

    time: int
    mark: str
    address: int
    nbytes: int


def _seen(event: Any, path: tuple[str, ...], scratch: frozenset[int]) -> Iterator[_Seen]:
    """What happened in an event and below it; the path and the addresses of scratch are those of the events above."""
    if event.tag == _EventType.Allocation:
        fields = event.extra_fields
        left_out = fields.ptr in scratch or _is_of_the_cpu(path, fields.alloc_size)
        if fields.alloc_size < 0 or not left_out:
            yield _Seen(event.start_time_ns, "", fields.ptr, fields.alloc_size)
    elif event.name.startswith(_MARK):
        yield _Seen(event.start_time_ns, event.name.removeprefix(_MARK), 0, 0)
    if event.name in PRODUCTS:
        scratch |= frozenset(_freed(event))
    for child in event.children:
        yield from _seen(child, (*path, event.name), scratch)


def _is_of_the_cpu(path: tuple[str, ...], nbytes: int) -> bool:
    cast = any(above in MIXING and below == "aten::to" for above, below in pairwise(path))
    by_an_operation = bool(path) and path[-1].startswith("aten::")
    return cast or (nbytes == GENERATOR_BYTES and not by_an_operation)


def _freed(event: Any) -> Iterator[int]:
    for child in event.children:
        if child.tag == _EventType.Allocation and child.extra_fields.alloc_size < 0:
            yield child.extra_fields.ptr
        yield from _freed(child)


OPTIMIZER = import_module("torch.optim.optimizer")
QUESTION = "_get_foreach_kernels_supported_devices"


def on_lists() -> list[str]:
    """The answer that lets optimizers work on lists of tensors on the CPU, as they do on a card."""
    return ["cpu", "cuda"]


if __name__ == "__main__":
    from peftbench.dryrun.worker import main

    setattr(OPTIMIZER, QUESTION, on_lists)
    main()
