"""The terms of a step's time in words: what the step waits for, and what is hidden behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftbench.estimate.time import TimeTerm

if TYPE_CHECKING:
    from peftbench.estimate.time import StepTime


def terms_of(step: StepTime) -> tuple[TimeTerm, ...]:
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
        TimeTerm("exchange", parts.exchange_s, "gradients summed over the GPUs once a step"),
    )
    return tuple(term for term in found if term.seconds > 0)


def _tera(flops: int) -> str:
    return f"{flops / 1e12:,.3g} TFLOP"


def _of(whole_s: float, what: str) -> str:
    return f"{what} for {whole_s:.3g} s, the rest of which is hidden behind the card"
