"""What torch's allocator held between two marks: by its own counters on a card, by torch.profiler on a CPU."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch

from peftbench.memory import Phase
from peftbench.records.run import PhasePeak

Emit = Callable[[PhasePeak], None]


class CudaMeter:
    """torch.cuda's peak counters, reset at every mark. They count on the host, so no synchronization is needed."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._phase: tuple[Phase, int, int] | None = None

    def mark(self, phase: Phase, step: int) -> None:
        """Hand on the peak of the phase before."""
        self.finish()
        self._phase = (phase, step, torch.cuda.memory_allocated())
        torch.cuda.reset_peak_memory_stats()

    def finish(self) -> None:
        """Hand on the peak of the last phase."""
        if self._phase is not None:
            phase, step, held = self._phase
            allocated, reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
            self._emit(PhasePeak(step, phase, allocated, reserved, held))
            self._phase = None


class CpuMeter:
    """Every allocation of torch's CPU allocator, as torch.profiler records it, those inside of kernels included.

    A TorchDispatchMode would not do: under it autograd adds gradients out of place, and never sees what a kernel
    allocates inside. Peaks are known at the end only. Profiling takes time, so timed steps come after `finish`.
    `held_bytes` are of tensors that are there before the first mark, and stay.
    """

    def __init__(self, emit: Emit, held_bytes: int = 0) -> None:
        self._emit = emit
        self._held_bytes = held_bytes
        self._profiler: Any = None

    def mark(self, phase: Phase, step: int) -> None:
        """Leave a mark in the profile, which begins with the first."""
        if self._profiler is None:
            gc.collect()
            activities = [torch.profiler.ProfilerActivity.CPU]
            self._profiler = torch.profiler.profile(activities=activities, profile_memory=True)
            self._profiler.__enter__()
        with torch.profiler.record_function(f"{_MARK}{step} {phase.value}"):
            pass

    def finish(self) -> None:
        """Hand on the peaks of all phases."""
        if self._profiler is None:
            return
        profiler, self._profiler = self._profiler, None
        profiler.__exit__(None, None, None)
        for peak in peaks_of(profiler.profiler.kineto_results.experimental_event_tree(), self._held_bytes):
            self._emit(peak)


Meter = CudaMeter | CpuMeter
"""Is given where each phase begins; hands on the peak of each phase that has ended, or of all at the end."""


def start_meter(on_card: bool, emit: Emit, held_bytes: int = 0) -> Meter:
    """The meter of the device; `held_bytes` only a CPU's has to know."""
    return CudaMeter(emit) if on_card else CpuMeter(emit, held_bytes)


_MARK = "peftbench mark "


class _Seen(NamedTuple):
    """A mark, an allocation, or with negative bytes a release."""

    time: int
    mark: str
    address: int
    nbytes: int


def peaks_of(tree: Iterable[Any], held_bytes: int) -> Iterator[PhasePeak]:
    """The most bytes alive at once in each phase of a profile, with those that were there before."""
    alive: dict[int, int] = {}
    highest: dict[tuple[int, Phase], int] = {}
    held: dict[tuple[int, Phase], int] = {}
    total, place = held_bytes, None
    timeline = sorted((seen for event in tree for seen in _seen(event)), key=lambda seen: seen.time)
    for _, mark, address, nbytes in timeline:
        if mark:
            number, _, phase = mark.partition(" ")
            place = (int(number), Phase(phase))
            held.setdefault(place, total)
        elif nbytes < 0:
            total -= alive.pop(address, 0)  # what was made before the profile began is not in it
        else:
            alive[address] = nbytes
            total += nbytes
        if place is not None:
            highest[place] = max(highest.get(place, 0), total)
    return (PhasePeak(*place, size, None, held[place]) for place, size in highest.items())


def _seen(event: Any) -> Iterator[_Seen]:
    from torch._C._profiler import _EventType

    if event.tag == _EventType.Allocation:
        yield _Seen(event.start_time_ns, "", event.extra_fields.ptr, event.extra_fields.alloc_size)
    elif event.name.startswith(_MARK):
        yield _Seen(event.start_time_ns, event.name.removeprefix(_MARK), 0, 0)
    for child in event.children:
        yield from _seen(child)


# ── what a model holds ──────────────────────────────────────────────────────────────────────────────────────────────


def weights_bytes(model: Any) -> int:
    """Bytes of every storage that the model reaches, each once: parameters, buffers, quantization constants."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage() for tensor in _tensors_of(model)}
    return sum(storage.nbytes() for storage in storages.values())


def _tensors_of(model: Any) -> Iterator[torch.Tensor]:
    """All, those of the quantization included: absmax and codes of 4-bit weights, the scales of 8-bit ones."""
    for module in model.modules():
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            yield tensor
            yield from _inside(getattr(tensor, "quant_state", None))
            yield from _inside({name: getattr(tensor, name, None) for name in ("CB", "SCB")})
        yield from _inside(getattr(module, "state", None))


def _inside(holder: Any) -> Iterator[torch.Tensor]:
    """Tensors among the attributes of a QuantState, the state nested in it included, or of a MatmulLtState."""
    values = holder.values() if isinstance(holder, dict) else vars(holder).values() if holder is not None else ()
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif type(value).__name__ == "QuantState":
            yield from _inside(value)
