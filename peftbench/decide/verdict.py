"""Does a memory profile fit a card: one of a few words, by how much, and because of what.

A word is a promise of how often a run that gets it runs out of memory. The thresholds are in `word`, and
tests/benchmarks/verdicts.py prints how well the promises are kept.
"""

from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple

from peftbench.base.units import GIB, gib, human_bytes
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.memory import Component, MemoryProfile, Part, Phase


class Fit(str, Enum):
    """The answer, from the best to the worst."""

    FITS = "fits"  # the reserved peak, even at the high end of its band
    TIGHT = "tight"  # the reserved peak as it is expected
    RISKY = "risky"  # the tensors alone: it takes a flush of the allocator's cache, and luck
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

    @property
    def is_likely(self) -> bool:
        """Whether a run more likely comes through than not."""
        return self.rank <= Fit.TIGHT.rank


class Promise(NamedTuple):
    """Which share of the runs that get a word run out of memory."""

    least: float
    most: float

    @property
    def text(self) -> str:
        """As a person writes it: "at most 20 % of such runs", "20 to 90 % of such runs"."""
        if self.most == 1:
            return f"at least {self.least:.0%} of such runs".replace("%", " %")
        if self.least == 0:
            return f"at most {self.most:.0%} of such runs".replace("%", " %")
        return f"{100 * self.least:.0f} to {self.most:.0%} of such runs".replace("%", " %")


PROMISES = {
    Fit.FITS: Promise(0, 0.01), Fit.TIGHT: Promise(0, 0.2), Fit.RISKY: Promise(0.2, 0.9),
    Fit.DOES_NOT_FIT: Promise(0.9, 1),
}  # fmt: skip


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
    context_bytes: int = 0
    """The CUDA context as it is expected: part of neither `required_bytes` nor `usable_bytes`."""

    @property
    def headroom_bytes(self) -> int:
        """What is left at the expected peak; negative when it is too much."""
        return self.usable_bytes - self.required_bytes

    @property
    def need(self) -> str:
        """What is needed of the card and what is left, in GiB: "needs 10.60 of 14.56 GiB, 3.97 left"."""
        device_bytes, left = self.required_bytes + self.context_bytes, self.headroom_bytes
        text = f"needs {gib(device_bytes)} of {gib(self.usable_bytes + self.context_bytes)} GiB, "
        amount = gib(abs(left)) if abs(left) >= GIB // 100 else human_bytes(abs(left))
        text += f"{amount} left" if left >= 0 else f"{amount} too much"
        if self.fit is Fit.FITS or left < 0:
            return text
        return f"{text}, but up to {gib(self.high_bytes + self.context_bytes)} within its band"

    @property
    def reason(self) -> str:
        """The need, and the largest component of the peak, in one sentence."""
        return f"{self.need}; the largest part is {self.blame}"

    @property
    def blame(self) -> str:
        """The largest component of the peak, and why it is so large."""
        largest = self.largest
        share = round(100 * largest.bytes / max(self.required_bytes + self.context_bytes, 1))
        because = f": {largest.because}" if largest.because else ""
        return f"{largest.part}, {human_bytes(largest.bytes)} ({share} %) in the {self.phase}{because}"

    def line(self, what: str) -> str:
        """The first line of an answer about `what`: "fits: qlora on t4 needs 10.60 of 14.56 GiB, 3.97 left"."""
        return f"{self.fit.text}: {what} {self.need}"


class Effect(str, Enum):
    """What a setting that is not priced does to the memory."""

    MORE = "more"
    LESS = "less"
    EITHER = "either"

    __str__ = str.__str__


class Unpriced(NamedTuple):
    """A setting of another tool's file that changes the memory in a way that nothing here prices."""

    setting: str
    effect: Effect
    most_bytes: int | None = None
    """At most so much more, or less; None: not known."""

    def may_turn(self, verdict: Verdict) -> bool:
        """Whether it may make the word on what is priced untrue. What it adds at most is in the band already."""
        if verdict.fit.is_likely:
            return self.effect is not Effect.LESS and (self.effect is Effect.EITHER or self.most_bytes is None)
        least_bytes = verdict.required_bytes - (self.most_bytes or 0)
        return self.effect is not Effect.MORE and (self.most_bytes is None or least_bytes <= verdict.usable_bytes)


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
    fit = word(required_bytes - slack_bytes, required_bytes, high_bytes, gpu.usable_bytes)
    largest = max(alive, key=lambda c: c.bytes)
    return Verdict(fit, required_bytes, high_bytes, gpu.usable_bytes, phase, largest, context_bytes)


def word(tensors_bytes: int, required_bytes: int, high_bytes: int, usable_bytes: int) -> Fit:
    """The word for a peak of so many bytes of tensors, expected and at most reserved, where so many are usable."""
    if high_bytes <= usable_bytes:
        return Fit.FITS
    if required_bytes <= usable_bytes:
        return Fit.TIGHT
    return Fit.RISKY if tensors_bytes <= usable_bytes else Fit.DOES_NOT_FIT


def widened(verdict: Verdict, unpriced: Iterable[Unpriced]) -> Verdict:
    """The verdict with what settings without a price may need beyond its band, as far as that is known."""
    more_bytes = sum(each.most_bytes or 0 for each in unpriced if each.effect is Effect.MORE)
    high_bytes = verdict.high_bytes + more_bytes
    fits = verdict.fit is Fit.FITS and high_bytes > verdict.usable_bytes
    return verdict._replace(high_bytes=high_bytes, fit=Fit.TIGHT if fits else verdict.fit)


def ended(verdict: Verdict, ran_out: bool, retries: int) -> Verdict:
    """The verdict on a run whose allocator was replayed on the card: it ran out of memory there, flushed its cache to
    go on, or came through."""
    if ran_out:
        return verdict._replace(fit=Fit.DOES_NOT_FIT)
    if retries or not verdict.fit.is_likely:
        return verdict._replace(fit=Fit.TIGHT)
    return verdict
