"""What a step's time is made of: named terms that add up to it, its band, and tokens a second."""

import math
from typing import NamedTuple

from peftbench.estimate.time.flops import StepWork


class TimeTerm(NamedTuple):
    """One cause of a step's time; the terms of a step add up to it."""

    name: str
    seconds: float
    because: str


class Parts(NamedTuple):
    """Seconds of one micro-step by cause, before they overlap; `optimizer_s` and `exchange_s` of a whole step."""

    compute_s: float
    attention_s: float
    memory_traffic_s: float
    dequantization_s: float
    launch_floor_s: float
    links_s: float
    optimizer_s: float
    exchange_s: float

    @property
    def card_s(self) -> float:
        """What the card itself needs."""
        return self.compute_s + self.attention_s + self.memory_traffic_s + self.dequantization_s


class StepTime(NamedTuple):
    """One optimizer step, gradient accumulation included."""

    work: StepWork
    parts: Parts
    accumulated: int
    gpus: int
    waits_for_links: bool
    band: float
    doubt: str
    """Why the band is wide; empty where steps like this were measured on this card."""
    framework: str

    @property
    def calibrated(self) -> bool:
        """Whether steps like this were ever measured on this card."""
        return not self.doubt

    @property
    def micro_step_s(self) -> float:
        """One forward and backward pass."""
        parts = self.parts
        if self.waits_for_links:
            return math.hypot(parts.card_s, parts.launch_floor_s) + parts.links_s
        return math.hypot(parts.card_s, parts.launch_floor_s, parts.links_s)

    @property
    def exchange_wait_s(self) -> float:
        """What the last micro-step grows by the exchange of gradients."""
        if self.waits_for_links:
            return self.parts.exchange_s
        return math.hypot(self.micro_step_s, self.parts.exchange_s) - self.micro_step_s

    @property
    def step_s(self) -> float:
        """From one update to the next."""
        return self.accumulated * self.micro_step_s + self.parts.optimizer_s + self.exchange_wait_s

    @property
    def low_s(self) -> float:
        """Lower end of the band."""
        return self.step_s / self.band

    @property
    def high_s(self) -> float:
        """Upper end of the band."""
        return self.step_s * self.band

    @property
    def tokens_per_s(self) -> float:
        """Of all GPUs, padding included."""
        return self.gpus * self.accumulated * self.work.tokens / self.step_s

    @property
    def tokens_per_s_low(self) -> float:
        """At the upper end of the step's band."""
        return self.tokens_per_s / self.band

    @property
    def tokens_per_s_high(self) -> float:
        """At its lower end."""
        return self.tokens_per_s * self.band

    @property
    def terms(self) -> tuple[TimeTerm, ...]:
        """What the step waits for; they add up to `step_s`."""
        return _terms_of(self)


def _terms_of(step: StepTime) -> tuple[TimeTerm, ...]:
    """What the card does in full; of launches and links only what it waits for, so that all add up to the step."""
    parts, work, times = step.parts, step.work, step.accumulated
    waits = step.micro_step_s - parts.card_s
    beside = parts.launch_floor_s + parts.links_s
    launch_s, links_s = (waits * part / beside if beside else 0.0 for part in (parts.launch_floor_s, parts.links_s))
    found = (
        TimeTerm("compute", times * parts.compute_s, f"{_tera(times * work.matmul_flops)} of products"),
        TimeTerm("attention", times * parts.attention_s, f"{_tera(times * work.attention_flops)} of causal pairs"),
        TimeTerm("memory traffic", times * parts.memory_traffic_s, "norms, activations, adapters, logits and scores"),
        TimeTerm("dequantization", times * parts.dequantization_s, "weights written out in 16 bit in every pass"),
        TimeTerm("launch floor", times * launch_s, _of(times * parts.launch_floor_s, "the host launches kernels")),
        TimeTerm("links", times * links_s, _of(times * parts.links_s, "weights gathered, gradients scattered")),
        TimeTerm("optimizer", parts.optimizer_s, "weights, gradients and states read and written"),
        TimeTerm("exchange", step.exchange_wait_s, _of(parts.exchange_s, "gradients summed over the GPUs")),
    )
    return tuple(term for term in found if term.seconds > 0)


def _tera(flops: int) -> str:
    return f"{flops / 1e12:,.3g} TFLOP"


def _of(whole_s: float, what: str) -> str:
    return f"{what} for {whole_s:.3g} s; what is hidden behind the card is left out"
