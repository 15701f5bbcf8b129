"""Does a memory profile fit a card: fits, tight or does not fit, by how much, and because of what."""

from enum import Enum
from typing import NamedTuple

from peftbench.base.units import human_bytes
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.memory import Component, MemoryProfile, Part, Phase


class Fit(str, Enum):
    """The answer, from the best to the worst."""

    FITS = "fits"  # the reserved peak, even at the high end of its band
    TIGHT = "tight"  # the tensors fit: the allocator has to flush its cache and retry
    DOES_NOT_FIT = "does_not_fit"

    __str__ = str.__str__

    @property
    def text(self) -> str:
        """As a person writes it."""
        return self.value.replace("_", " ")

    @property
    def rank(self) -> int:
        """0 for the best."""
        return list(Fit).index(self)


class Verdict(NamedTuple):
    """One profile judged on one card; every figure is of the profile's peak."""

    fit: Fit
    required_bytes: int
    """Expected peak of torch.cuda.memory_reserved()."""
    high_bytes: int
    """The upper end of its band, that of the CUDA context included."""
    usable_bytes: int
    """What the allocator can reserve on the card."""
    phase: Phase
    largest: Component
    """The reason."""

    @property
    def headroom_bytes(self) -> int:
        """What is left at the expected peak; negative when it is too much."""
        return self.usable_bytes - self.required_bytes

    @property
    def reason(self) -> str:
        """The peak, what it leaves, and its largest component, in one sentence."""
        largest = self.largest
        share = round(100 * largest.bytes / max(self.required_bytes, 1))
        because = f": {largest.because}" if largest.because else ""
        return (
            f"needs {human_bytes(self.required_bytes)} at its peak ({self.phase}), {self._margin()}; "
            f"the largest part is {largest.part}, {human_bytes(largest.bytes)} ({share} %){because}"
        )

    def _margin(self) -> str:
        if self.headroom_bytes < 0:
            return f"{human_bytes(-self.headroom_bytes)} more than is usable"
        left = f"{human_bytes(self.headroom_bytes)} to spare"
        band = f", but up to {human_bytes(self.high_bytes)} within its band"
        return left + ("" if self.fit is Fit.FITS else band)


def judge(profile: MemoryProfile, gpu: GpuSpec) -> Verdict:
    """Compare the peak with what the card leaves to PyTorch.

    The expected CUDA context is off `usable_bytes` already, so it is taken off the profile too; what its band
    may add stays in `high_bytes`.
    """
    phase = profile.peak_phase
    alive = profile.alive_in(phase)
    context_bytes = sum(c.bytes for c in alive if c.part is Part.CONTEXT)
    slack_bytes = sum(c.bytes for c in alive if c.part is Part.SLACK)
    required_bytes = sum(c.bytes for c in alive) - context_bytes
    high_bytes = sum(c.high_bytes for c in alive) - context_bytes
    if high_bytes <= gpu.usable_bytes:
        fit = Fit.FITS
    elif required_bytes - slack_bytes <= gpu.usable_bytes:
        fit = Fit.TIGHT
    else:
        fit = Fit.DOES_NOT_FIT
    largest = max(alive, key=lambda c: c.bytes)
    return Verdict(fit, required_bytes, high_bytes, gpu.usable_bytes, phase, largest)


def ended(verdict: Verdict, ran_out: bool, retries: int) -> Verdict:
    """The verdict on a run whose allocator was replayed on the card: it ran out of memory there, flushed its cache to
    go on, or came through."""
    if ran_out:
        return verdict._replace(fit=Fit.DOES_NOT_FIT)
    if retries or verdict.fit is Fit.DOES_NOT_FIT:
        return verdict._replace(fit=Fit.TIGHT)
    return verdict
