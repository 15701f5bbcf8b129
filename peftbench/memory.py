"""What every tier returns: components of memory, each alive in some phases, and the peak they make."""

from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import NamedTuple


class Phase(str, Enum):
    """When memory is alive: the common language of estimates, dry runs and measurements."""

    LOAD = "load"
    FORWARD = "forward and loss"
    BACKWARD = "backward pass"
    STEP = "optimizer step"
    PREFILL = "prefill"
    DECODE = "decode"

    __str__ = str.__str__


STEP = frozenset({Phase.STEP})
TRAINING = frozenset({Phase.FORWARD, Phase.BACKWARD, Phase.STEP})
ALWAYS = TRAINING | {Phase.LOAD}
"""The phases of a training run."""


class Part(str, Enum):
    """What the memory holds."""

    WEIGHTS = "weights"
    LOADING = "loading"
    QUANTIZATION_CONSTANTS = "quantization constants"
    UNQUANTIZED = "embeddings, head, norms"
    EXPERTS = "unquantized experts"
    ADAPTERS = "adapters"
    GRADIENTS = "gradients"
    ACCUMULATED = "accumulated gradients"
    OPTIMIZER = "optimizer states"
    OPTIMIZER_TEMPORARIES = "optimizer temporaries"
    CHECKPOINTS = "checkpoints"
    ACTIVATIONS = "activations"
    LOGITS = "logits and loss"
    KV_CACHE = "KV cache"
    DEQUANTIZATION = "dequantization"
    WORKSPACE = "workspace"
    GATHERED = "gathered weights"
    BUCKETS = "communication buckets"
    SLACK = "allocator slack"
    NCCL = "NCCL buffers"
    CONTEXT = "CUDA context"

    __str__ = str.__str__


class Basis(str, Enum):
    """How a component's bytes are known."""

    EXACT = "exact"  # counted; an oracle test holds it to the byte
    TRACED = "traced"  # the libraries' own code asked for it, in a dry run
    MODELLED = "modelled"  # a formula whose error `peftbench validate` prints
    ASSUMED = "assumed"  # a constant taken from a named source

    __str__ = str.__str__


class Component(NamedTuple):
    """Some bytes of one part, alive in some phases.

    `low_bytes` and `high_bytes` are the band in which the true size is expected; both equal `bytes` when exact.
    """

    part: Part
    bytes: int
    basis: Basis
    phases: frozenset[Phase]
    because: str
    low_bytes: int
    high_bytes: int


def exact(part: Part, size_bytes: int, phases: frozenset[Phase], because: str) -> Component:
    """Make a component that is counted to the byte."""
    return Component(part, size_bytes, Basis.EXACT, phases, because, size_bytes, size_bytes)


def modelled(
    part: Part, size_bytes: int, phases: frozenset[Phase], because: str, error: float
) -> Component:
    """Make a component from a formula with a relative error, so 0.05 stands for ±5 %."""
    spread = round(size_bytes * error)
    return Component(part, size_bytes, Basis.MODELLED, phases, because, size_bytes - spread, size_bytes + spread)


OLDER_DRIVERS = 0.015
"""How much more of a card is visible with older drivers: 15110 MiB of a T4 in 2022, 14913 since 2025."""
_BEYOND_ALLOCATED = frozenset({Part.SLACK, Part.NCCL, Part.CONTEXT})


class Full(NamedTuple):
    """What torch's allocator reserves on a card that has less than it would keep, in bytes."""

    reserved_bytes: int
    """At most: a request that fails has it give back what it kept, so that the peak lies below the card's size."""
    low_bytes: int
    """After it gave back, which is what a sampling tool sees for most of the run."""


@dataclass(frozen=True)
class MemoryProfile:
    """The memory of one training or inference step: components by phase; the peak is the largest phase.

    Three sizes, never mixed: `allocated_bytes` are tensors, `reserved_bytes` adds the allocator's slack,
    `device_bytes` adds the CUDA context and is what NVML would see. The last two are those on the card: one that is
    full gets back what the allocator keeps, before anything fails. `needed_bytes` is what a larger card would show.
    """

    components: tuple[Component, ...]
    usable_bytes: int | None = None
    """What the card leaves to torch's allocator; None: as much as it takes."""
    full: Full | None = None
    """A replay on this card, where it is full and one was made."""

    @cached_property
    def phases(self) -> tuple[Phase, ...]:
        """The phases in which anything is alive, in order of time."""
        alive = {phase for component in self.components for phase in component.phases}
        return tuple(phase for phase in Phase if phase in alive)

    def alive_in(self, phase: Phase) -> tuple[Component, ...]:
        """The components that hold memory in this phase."""
        return tuple(c for c in self.components if phase in c.phases)

    def allocated_in(self, phase: Phase) -> int:
        """Bytes of tensors in this phase: no slack, no context."""
        return sum(c.bytes for c in self.alive_in(phase) if c.part not in _BEYOND_ALLOCATED)

    def device_in(self, phase: Phase) -> int:
        """Bytes of the device in this phase: tensors, allocator slack and context."""
        return sum(c.bytes for c in self.alive_in(phase))

    @cached_property
    def peak_phase(self) -> Phase:
        """The phase that needs most of the device; the earlier one of equals."""
        return max(self.phases, key=self.device_in)

    @cached_property
    def peak(self) -> tuple[Component, ...]:
        """The components alive at the peak."""
        return self.alive_in(self.peak_phase)

    @property
    def allocated_bytes(self) -> int:
        """Peak of torch.cuda.memory_allocated(), in whichever phase that is: loading leaves no slack beside it."""
        return max(map(self.allocated_in, self.phases))

    @property
    def reserved_bytes(self) -> int:
        """Peak of torch.cuda.memory_reserved()."""
        return self.device_bytes - self.context_bytes - self.bytes_of(Part.NCCL)

    @property
    def device_bytes(self) -> int:
        """Peak device memory of the process, as NVML sees it."""
        if self.full:
            return self.full.reserved_bytes + self.context_bytes
        return self._on_card(self.needed_bytes)

    @property
    def needed_bytes(self) -> int:
        """The same on a card that is large enough for all that the allocator would keep: the sum of the peak."""
        return self.device_in(self.peak_phase)

    @property
    def needed_high_bytes(self) -> int:
        """The upper end of the band around `needed_bytes`."""
        return sum(c.high_bytes for c in self.peak)

    @property
    def context_bytes(self) -> int:
        """The CUDA context: on the device but not in torch's allocator."""
        return sum(c.bytes for c in self.peak if c.part is Part.CONTEXT)

    @property
    def device_low_bytes(self) -> int:
        """The lower end of the band around `device_bytes`."""
        if self.full:
            return self.full.low_bytes + sum(c.low_bytes for c in self.peak if c.part is Part.CONTEXT)
        return self._on_card(sum(c.low_bytes for c in self.peak))

    @property
    def device_high_bytes(self) -> int:
        """The upper end of the band around `device_bytes`; an older driver leaves more of a card that is full."""
        return min(self.needed_high_bytes, round(self._on_card(self.needed_high_bytes) * (1 + OLDER_DRIVERS)))

    def _on_card(self, size_bytes: int) -> int:
        """No more than there is, where what cannot be given back fits: cached blocks are freed before a request fails.

        Source: alloc_block and release_cached_blocks in c10/cuda/CUDACachingAllocator.cpp.
        """
        if self.usable_bytes is None or self.allocated_bytes + self.bytes_of(Part.NCCL) > self.usable_bytes:
            return size_bytes
        return min(size_bytes, self.usable_bytes + self.context_bytes)

    def bytes_of(self, part: Part) -> int:
        """Bytes of one part at the peak."""
        return sum(c.bytes for c in self.peak if c.part is part)

    @property
    def largest(self) -> Component:
        """The largest component at the peak: the reason the answer gives."""
        return max(self.peak, key=lambda c: c.bytes)
