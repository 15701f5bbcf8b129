"""How long a training step is expected to take, each cause a named term.

An expectation by formula, not a measurement. PyTorch launches ahead of the card, and FSDP gathers ahead of both:

    card       = max(products / rate, weights read) + attention
                 + bytes between products / bandwidth + dequantization
    host       = launches of layers, adapters and 4-bit layers
    micro-step = √(card² + host² + links²)
    step       = micro-steps + optimizer + what is exchanged once

The root is between the longest alone, which perfect overlap would take, and the sum, which none would. DDP exchanges
gradients behind the last micro-step, by the same root. DeepSpeed's ZeRO does not gather ahead of a late host: its links
are added.
"""

import math
from typing import NamedTuple

from peftbench.estimate.forward.kernels import attention_kernel
from peftbench.estimate.parts.card import traits_of
from peftbench.estimate.sharding.links import PCIE, Traffic, over_nvlink, traffic
from peftbench.estimate.time.constants import BLOCK_LAUNCH_S, FRAMEWORKS, UNCALIBRATED_BAND, TimeConstants, constants_of
from peftbench.estimate.time.flops import StepWork, builds_weights, logit_bytes, step_work
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.recipe import DType, TrainingSpec

__all__ = ["FRAMEWORKS", "StepTime", "TimeConstants", "constants_of", "step_time"]

SCORE_BYTES = 24
"""Bytes that unfused attention moves for one score in a pass: written, masked, softmax in float32, cast, read."""
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
        """Tokens a second of all GPUs, padding included."""
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
    doubt = doubt_about(model, training, gpu, usual.calibrated)
    work = step_work(model, training)
    parallel = training.parallelism
    sent = traffic(parallel, gpu, work.trained_bytes, work.gathered_bytes, training.defers_reduction)
    return StepTime(
        work=work,
        parts=_parts(work, training, gpu, usual, attention_kernel(model, training, traits_of(gpu)), sent),
        accumulated=training.gradient_accumulation_steps,
        gpus=parallel.gpus,
        waits_for_links=parallel.strategy.startswith("zero"),
        band=max(usual.band, UNCALIBRATED_BAND) if doubt else usual.band,
        doubt=doubt,
        framework=framework,
    )


def _parts(
    work: StepWork, training: TrainingSpec, gpu: GpuSpec, usual: TimeConstants, kernel: str, sent: Traffic
) -> Parts:
    rate = usual.matmul_share * (gpu.tensor_flops or 0)
    bandwidth = usual.bandwidth_share * (gpu.memory_bandwidth or 0)
    between = usual.stream_passes * work.stream_bytes + work.adapter_bytes + work.built_bytes + work.cast_bytes
    between += work.logits * logit_bytes(training, usual.fused_kernels)
    attention_s, scores = work.attention_flops / (usual.attention_share * rate), 0
    if kernel in ("math", "eager", "cpu") and not usual.fused_kernels:
        attention_s, scores = 2 * work.attention_flops / rate, work.scores * work.passes
    own = training.quantization.scheme.moved_bytes if training.quantization else None
    dequantized_bytes = work.dequantized_weights * (usual.dequantized_bytes if own is None else own)
    sharded = training.parallelism.gpus if training.parallelism.shards_optimizer else 1
    return Parts(
        compute_s=max(work.matmul_flops / rate, work.weight_bytes / bandwidth),
        attention_s=attention_s,
        memory_traffic_s=(between + SCORE_BYTES * scores) / bandwidth,
        dequantization_s=dequantized_bytes / (gpu.memory_bandwidth or 1),
        launch_floor_s=_launch_floor_s(work, training, usual),
        links_s=sent.micro_step_s,
        optimizer_s=_offload_s(work, training) or work.optimizer_bytes / sharded / bandwidth,
        exchange_s=sent.step_s,
    )


def _offload_s(work: StepWork, training: TrainingSpec) -> float:
    """Every GPU fetches its part for both passes, returns gradients, and updates in the host's memory; 0 without."""
    if not training.parallelism.cpu_offload:
        return 0.0
    passes = training.gradient_accumulation_steps
    moved = 2 * passes * work.gathered_bytes + (1 if training.defers_reduction else passes) * work.trained_bytes
    return (moved / PCIE + work.optimizer_bytes / HOST) / training.parallelism.gpus


def _launch_floor_s(work: StepWork, training: TrainingSpec, usual: TimeConstants) -> float:
    """What the host takes to launch a micro-step, which no faster card shortens."""
    seconds = work.layers * work.passes * usual.layer_launch_s + work.adapter_launches * usual.adapter_launch_s
    seconds += work.built_blocks * BLOCK_LAUNCH_S
    if training.quantization and training.quantization.scheme.launches:
        seconds += work.quantized_launches * usual.quantized_launch_s
    if training.parallelism.strategy in ("zero2", "zero3"):
        seconds += work.layers * usual.shard_launch_s
    return seconds


# ── what is not known ───────────────────────────────────────────────────────────────────────────────────────────────


def unknown_time(training: TrainingSpec, gpu: GpuSpec) -> str:
    """Why no time can be expected; empty where one can.

    The catalogue has 16-bit rates. Float32 weights are multiplied at those under autocast; without, torch neither uses
    them nor TF32 by default.
    """
    if not gpu.tensor_flops or not gpu.memory_bandwidth:
        return f"the rates of {_card(gpu)} are not known"
    if training.dtype is DType.FLOAT32 and not training.autocast:
        return "products are in float32, whose rate is not in the catalogue; with --autocast they are in 16 bit"
    return ""


def doubt_about(model: ModelSpec, training: TrainingSpec, gpu: GpuSpec, calibrated: bool) -> str:
    """Why a time is uncalibrated; empty where it is not. `calibrated`: plain steps on this card were measured."""
    parallel = training.parallelism
    if not calibrated:
        return f"no steps on {_card(gpu)} published"
    if builds_weights(training):
        return "no constant was fitted to adapters that build weights in every pass"
    if model.num_experts:
        return "no steps of a mixture of experts published"
    if training.quantization and training.quantization.scheme.step_doubt:
        return training.quantization.scheme.step_doubt
    if parallel.gpus > 1 and not over_nvlink(parallel, gpu):
        return "no steps of several GPUs over PCIe published"
    return ""


def _card(gpu: GpuSpec) -> str:
    if gpu.is_cpu:
        return "a CPU"
    return {"given": "a card that is only given by its memory", "local": gpu.product}.get(gpu.name, gpu.name)
