"""How long a training step is expected to take, each cause a named term.

An expectation by formula, not a measurement. PyTorch launches ahead of the card, and FSDP gathers ahead of both:

    card       = max(products / rate, weights read) + attention
                 + bytes that kernels write and read / bandwidth + dequantization
    host       = launches of layers, adapters and 4-bit layers
    micro-step = √(card² + host² + links²)
    step       = micro-steps + optimizer + what is exchanged once

The root is between the longest alone, which perfect overlap would take, and the sum, which none would. DDP exchanges
gradients behind the last micro-step, by the same root. DeepSpeed's ZeRO does not gather ahead of a late host: its links
are added.
"""

import math
from dataclasses import replace
from typing import NamedTuple

from peftbench.estimate.forward.kernels import computes_in_half, kernels_of
from peftbench.estimate.forward.moments import step_moments
from peftbench.estimate.forward.step import step_of
from peftbench.estimate.parts.card import traits_of
from peftbench.estimate.peft_forward.virtual_tokens import stream_length, stream_tokens
from peftbench.estimate.sharding.links import UNNAMED_BAND, Traffic, host_rate, link_band, traffic
from peftbench.estimate.time.constants import (
    BLOCK_LAUNCH_S,
    FRAMEWORKS,
    FROM_CACHE,
    UNCALIBRATED_BAND,
    TimeConstants,
    constants_of,
)
from peftbench.estimate.time.flops import StepWork, builds_weights, step_work
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.recipe import TrainingSpec

__all__ = ["FRAMEWORKS", "StepTime", "TimeConstants", "constants_of", "step_time"]

FUSED = ("flash", "efficient")
"""Attention kernels that keep no scores."""
MATTERS = 1.1
"""A band that links widen by less is not worth a word."""
LINK_DOUBT = "the slots that the cards talk over are not known; name them by --link"
LIGER_LOGIT_BYTES = 10
"""2 written, 2 + 2 for loss and gradient in place, 2 + 2 for two products: one kernel that stays in 16 bit."""
HOST = 20e9
"""Bytes a second of the host's memory for each GPU that keeps its optimizer there: a host's 200 GB/s, shared by some.
Assumed; torchtune's 70B run with offload agrees."""


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
    attends: str = ""
    """How attention multiplies."""
    links_band: float = 1.0
    """Factor either way in which the seconds of the links lie; `band` holds for the rest."""

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
        return self.step_s / self._band_with_links(1 / self.links_band)

    @property
    def high_s(self) -> float:
        """Upper end of the band."""
        return self.step_s * self._band_with_links(self.links_band)

    def _band_with_links(self, factor: float) -> float:
        """The band towards links that take that many times as long: both errors are normal in logarithms."""
        if factor == 1:
            return self.band
        parts = self.parts
        moved = parts._replace(links_s=parts.links_s * factor, exchange_s=parts.exchange_s * factor)
        return math.exp(math.hypot(math.log(self.band), math.log(self._replace(parts=moved).step_s / self.step_s)))

    @property
    def tokens_per_s(self) -> float:
        """Tokens a second of all GPUs, padding included."""
        return self.gpus * self.accumulated * self.work.tokens / self.step_s

    @property
    def tokens_per_s_low(self) -> float:
        """At the upper end of the step's band."""
        return self.tokens_per_s * self.step_s / self.high_s

    @property
    def tokens_per_s_high(self) -> float:
        """At its lower end."""
        return self.tokens_per_s * self.step_s / self.low_s

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
        TimeTerm("compute", times * parts.compute_s, _products(times * work.matmul_flops, times * work.float32_flops)),
        TimeTerm("attention", times * parts.attention_s, step.attends),
        TimeTerm("memory traffic", times * parts.memory_traffic_s, "norms, activations, adapters, logits and scores"),
        TimeTerm("dequantization", times * parts.dequantization_s, "weights written out in 16 bit in every pass"),
        TimeTerm("launch floor", times * launch_s, _of(times * parts.launch_floor_s, "the host launches kernels")),
        TimeTerm("links", times * links_s, _of(times * parts.links_s, "weights gathered, gradients scattered")),
        TimeTerm("optimizer", parts.optimizer_s, "weights, gradients and states read and written"),
        TimeTerm("exchange", step.exchange_wait_s, _of(parts.exchange_s, "gradients summed over the GPUs")),
    )
    return tuple(term for term in found if term.seconds > 0)


def _products(flops: int, in_float32: int) -> str:
    return f"{_tera(flops)} of products" + (f", {_tera(in_float32)} of them in float32" if in_float32 else "")


def _tera(flops: int) -> str:
    return f"{flops / 1e12:,.3g} TFLOP"


def _of(whole_s: float, what: str) -> str:
    return f"{what} for {whole_s:.3g} s; what is hidden behind the card is left out"


def step_time(
    model: ModelSpec, training: TrainingSpec, gpu: GpuSpec, framework: str = "transformers",
    constants: TimeConstants | None = None,
) -> StepTime | None:  # fmt: skip
    """Expect the time of one optimizer step.

    None where something is unknown, which `unknown_time` names. Raises SpecError for an unknown framework,
    and for an adapter that PEFT would refuse.
    """
    usual = constants or constants_of(gpu, framework)
    if unknown_time(training, gpu):
        return None
    doubt = doubt_about(model, training)
    work = step_work(model, training)
    parallel = training.parallelism
    sent = traffic(parallel, gpu, work.trained_bytes, work.gathered_bytes, training.defers_reduction)
    kernels = _kernel_work(model, training, gpu, usual.fused_kernels)
    step = StepTime(
        work=work,
        parts=_parts(work, training, gpu, usual, kernels, sent),
        accumulated=training.gradient_accumulation_steps,
        gpus=parallel.gpus,
        waits_for_links=parallel.strategy.startswith("zero"),
        band=max(usual.band, UNCALIBRATED_BAND) if doubt else usual.band,
        doubt=doubt if usual.calibrated else f"no steps on {_card(gpu)} published",
        framework=framework,
        attends=_attends(work, training, kernels.attention),
        links_band=link_band(parallel, gpu),
    )
    unnamed = step.links_band == UNNAMED_BAND and step.high_s > MATTERS * step.band * step.step_s
    return step._replace(doubt=step.doubt or (LINK_DOUBT if unnamed else ""))


class KernelWork(NamedTuple):
    """What the kernels of one micro-step write on this card, and which of them attend."""

    written_bytes: float
    """To the card's memory; a tensor that stays in its cache counts for less."""
    attention: str
    """As Kernels.attention."""


def _kernel_work(model: ModelSpec, training: TrainingSpec, gpu: GpuSpec, fused: bool) -> KernelWork:
    """By the tape that the memory is estimated on: it has every tensor of the step, each in its own type."""
    kernels = kernels_of(model, training, traits_of(gpu))
    if fused:
        kernels, training = kernels._replace(attention="flash"), _with_fused_kernels(training)
    moments = step_moments(step_of(model, training, kernels))
    tokens, length, cache = stream_tokens(training), stream_length(training), gpu.l2_bytes or 1
    sizes = ((tokens * (a + b * length), times) for a, b, times in moments.written)
    written = sum(size * times * min(1.0, FROM_CACHE + size / cache) for size, times in sizes)
    if training.loss == "liger":  # the tape has one chunk of logits
        written += LIGER_LOGIT_BYTES * training.tokens * model.vocab_size
    return KernelWork(written, kernels.attention)


def _with_fused_kernels(training: TrainingSpec) -> TrainingSpec:
    """With Liger's kernels, which stand for those that a framework brings."""
    loss = training.loss if training.loss == "liger" else "fused-5"
    return replace(training, fused_kernels="liger", loss=loss)


def _parts(
    work: StepWork, training: TrainingSpec, gpu: GpuSpec, usual: TimeConstants, kernels: KernelWork, sent: Traffic
) -> Parts:
    rate, single = (usual.matmul_share * (flops or 1) for flops in (gpu.tensor_flops, gpu.float32_flops))
    bandwidth = usual.bandwidth_share * (gpu.memory_bandwidth or 1)
    own = training.quantization.scheme.moved_bytes if training.quantization else None
    dequantized_bytes = work.dequantized_weights * (usual.dequantized_bytes if own is None else own)
    products_s = (work.matmul_flops - work.float32_flops) / rate + work.float32_flops / single
    moved = usual.stream_passes * kernels.written_bytes + work.built_bytes + work.cast_bytes
    sharded = training.parallelism.gpus if training.parallelism.shards_optimizer else 1
    return Parts(
        compute_s=max(products_s, work.weight_bytes / bandwidth),
        attention_s=_attention_s(work, training, usual, kernels.attention, rate, single),
        memory_traffic_s=moved / bandwidth,
        dequantization_s=dequantized_bytes / (gpu.memory_bandwidth or 1),
        launch_floor_s=_launch_floor_s(work, training, usual),
        links_s=sent.micro_step_s,
        optimizer_s=_offload_s(work, training, gpu) or work.optimizer_bytes / sharded / bandwidth,
        exchange_s=sent.step_s,
    )


def _attention_s(
    work: StepWork, training: TrainingSpec, usual: TimeConstants, kernel: str, rate: float, single: float
) -> float:
    """`rate` is that of 16-bit products, `single` that of float32 ones: SDPA's unfused path computes all types in them.

    Fused attention has a rate of its own on tensor cores.
    """
    if _attends_in_float32(training, kernel):
        return (work.attention_flops if kernel in FUSED else work.unfused_flops) / single
    return work.attention_flops / (usual.attention_share * rate) if kernel in FUSED else work.unfused_flops / rate


def _attends_in_float32(training: TrainingSpec, kernel: str) -> bool:
    return kernel in ("math", "cpu") or not computes_in_half(training)


def _attends(work: StepWork, training: TrainingSpec, kernel: str) -> str:
    """The products of attention of one step in words."""
    flops, pairs = (work.attention_flops, "causal") if kernel in FUSED else (work.unfused_flops, "all")
    single = " in float32" if _attends_in_float32(training, kernel) else ""
    return f"{_tera(training.gradient_accumulation_steps * flops)} of {pairs} pairs{single}"


def _offload_s(work: StepWork, training: TrainingSpec, gpu: GpuSpec) -> float:
    """Every GPU fetches its part for both passes, returns gradients, and updates in the host's memory; 0 without.

    Where only the optimizer is there, what it updated is fetched instead.
    """
    parallel = training.parallelism
    if not parallel.cpu_offload:
        return 0.0
    passes = training.gradient_accumulation_steps
    weights_too = parallel.shards_weights and parallel.offload_params
    fetched = 2 * passes * work.gathered_bytes if weights_too else work.trained_bytes
    moved = fetched + (1 if training.defers_reduction else passes) * work.trained_bytes
    return (moved / host_rate(parallel, gpu) + work.optimizer_bytes / HOST) / parallel.gpus


def _launch_floor_s(work: StepWork, training: TrainingSpec, usual: TimeConstants) -> float:
    """What the host takes to launch a micro-step, which no faster card shortens."""
    seconds = work.layers * work.passes * usual.layer_launch_s + work.adapter_launches * usual.adapter_launch_s
    seconds += work.built_blocks * BLOCK_LAUNCH_S
    if training.quantization and training.quantization.scheme.launches:
        seconds += work.quantized_launches * usual.quantized_launch_s
    if training.parallelism.shards_optimizer:
        seconds += work.layers * usual.shard_launch_s
    return seconds


# ── what is not known ───────────────────────────────────────────────────────────────────────────────────────────────


def unknown_time(training: TrainingSpec, gpu: GpuSpec) -> str:
    """Why no time can be expected; empty where one can."""
    if not gpu.tensor_flops or not gpu.float32_flops or not gpu.memory_bandwidth:
        return f"the rates of {_card(gpu)} are not known"
    return ""


def doubt_about(model: ModelSpec, training: TrainingSpec) -> str:
    """Why no published step tells of such a recipe, on whatever card; empty where some do."""
    if builds_weights(training):
        return "no constant was fitted to adapters that build weights in every pass"
    if model.num_experts:
        return "no steps of a mixture of experts published"
    if training.quantization and training.quantization.scheme.step_doubt:
        return training.quantization.scheme.step_doubt
    return ""


def _card(gpu: GpuSpec) -> str:
    if gpu.is_cpu:
        return "a CPU"
    return {"given": "a card that is only given by its memory", "local": gpu.product}.get(gpu.name, gpu.name)
