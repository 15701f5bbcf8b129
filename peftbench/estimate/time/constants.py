"""The few physical constants that step time depends on: what holds for kinds of cards, and for frameworks.

All are fitted by `check.speed.throughput.fit_constants` to results/published/throughput.csv unless a line says
otherwise.
"""

import math
from functools import lru_cache
from typing import Any, NamedTuple

from peftbench.base.errors import SpecError, did_you_mean
from peftbench.base.visible import written
from peftbench.inputs.card.gpu import GpuSpec

FRAMEWORKS = ("transformers", "unsloth", "torchtune")

OF_THE_CARD = ("matmul_share",)
"""What runs under one framework tell of the card under another."""
DATACENTER = ((9, 0), (10, 0), (10, 3))
"""Hopper, and the Blackwell that is alike."""
OTHER_BEST_MATMUL = 0.80
"""Assumed: as on the H100; 0.87 was measured on the A100, 0.78 on the B200 (stas00/ml-engineering, MAMF)."""
FLOPS_PER_JOULE = {
    (7, 0): 0.333e12, (7, 5): 0.333e12, (8, 6): 0.413e12, (8, 9): 0.827e12, (9, 0): 1.135e12, (12, 0): 0.672e12,
}  # fmt: skip
"""By the card of the generation with the most power: V100 125 TFLOP/s in 300 W (T4 is made alike), A6000 154.8 in 300,
L40S 362 in 350 and RTX PRO 6000 503.8 in 600 W, at OTHER_BEST_MATMUL; the H100 SXM's measured 794.5 in 700 W."""
BAND = 1.4
"""Factor either way in which nine of ten steps of most sources lie, their own left out of the fit; nine of ten of all
published steps lie within 1.3, but half of those are of one source."""
OTHER_CARD_BAND = 1.5
"""Factor on cards that no published step was timed on: nine of ten steps lie within 1.35 where their card or its whole
generation is left out of the fit, and those cards are alike."""
UNCALIBRATED_BAND = 1.8
"""Factor on recipes whose kernels no published step tells of: assumed."""
OWN_BAND = 1.17
"""The least factor that a calibration may promise: half of 42 published runs of one card are within 6.6 % of a fit of
their own (Qwen's README), so nine of ten within 17 % if errors are normal. Left-out runs may resemble those of the fit
more than what is planned does."""


class HostCosts(NamedTuple):
    """Seconds that Python and PyTorch take to launch something, which no faster card shortens.

    The defaults are geometric means over the medians of independent sources, derived from the published rows by
    `check.published_latency.host_costs`; a test holds them together. All rows are eager PyTorch of 2023 and 2024.
    """

    layer_s: float = 0.99e-3
    """A decoder layer in 16 bit: litgpt 1.01 ms, ms-swift 1.03 ms, optimum-benchmark 0.92 ms."""
    quantized_linear_s: float = 0.093e-3
    """What a 4-bit linear layer of bitsandbytes adds: litgpt 0.16 ms, optimum-benchmark 0.054 ms."""
    separate_absmax_s: float = 0.045e-3
    """What double quantization adds where the absmax is dequantized by a kernel of its own: litgpt.

    bitsandbytes does so before 0.49; since then gemm_4bit takes the nested constants itself (matmul_4bit).
    """
    adapter_tensor_s: float = 0.065e-3
    """A dynamic adapter's matrix and its share of casts, scaling and addition: ms-swift, LoRA on every linear layer."""


HOST_COSTS = HostCosts()

DEQUANTIZED_BYTES = 2.9 * 2.5
"""Bytes moved for each weight that is written out in 16 bit before it is multiplied.

Reading half a byte and writing two is 2.5; bitsandbytes takes 3.6 times as long in litgpt's training on A100 and A10G,
and at most 2.3 times in optimum-benchmark's prefill of Llama-2-13B, where the copy is read besides: the geometric mean
is 2.9.
"""


class TimeConstants(NamedTuple):
    """What holds for one card under one framework; `calibrate` replaces them by what its own runs say."""

    matmul_share: float
    """Share of the data sheet's 16-bit rate that the products of a training step reach."""
    attention_share: float
    """Rate of fused attention by that of the other products."""
    layer_launch_s: float
    """What the host needs for one pass of one layer."""
    adapter_launch_s: float
    """For one pass of one matrix of an adapter."""
    stream_passes: float
    """How often kernels read or write a byte of a tensor that one of them makes."""
    shard_launch_s: float
    """What the hooks of FSDP and DeepSpeed add to a layer in a micro-step."""
    bandwidth_share: float = 0.8
    """Share of the data sheet's bandwidth that kernels reach which only move bytes. Assumed, as for latency."""
    quantized_launch_s: float = HOST_COSTS.quantized_linear_s
    """For one 4-bit linear layer, in forward, recomputation and backward once each: that of latency."""
    dequantized_bytes: float = DEQUANTIZED_BYTES
    """Bytes moved for each 4-bit weight of bitsandbytes that is written out in 16 bit: that of latency."""
    fused_kernels: bool = False
    """The framework brings its own fused attention and cross-entropy, whatever the card and the recipe."""
    band: float = OTHER_CARD_BAND
    calibrated: bool = False


PRIOR = TimeConstants(
    matmul_share=0.80,
    attention_share=0.86,
    layer_launch_s=1.06e-3,
    adapter_launch_s=0.068e-3,
    stream_passes=2.0,
    shard_launch_s=6.7e-3,
)
"""Constants of transformers with PEFT on a card whose products reach all of the data sheet's rate.

Two of them are not fitted. Attention: FlashAttention 2 reaches 0.5 to 0.73 of the A100's rate (Dao 2023), of which 0.6
is 0.86 of what its products reach. A byte is written by one kernel and read by another.
"""
HOPPER_ATTENTION_SHARE = 0.54
"""FlashAttention 2 does not use the instructions that Hopper's rate, and Blackwell's, is of, and reaches 0.35 of it
(Shah and others 2024)."""
FROM_CACHE = 0.25
"""Time for a byte that stays in the second-level cache by one of the card's memory: an A100's 5,120 bytes a clock are
four times the bandwidth of its memory."""
UNSLOTH_LAYER_S = 6.9e-3 / 4 - 14 * PRIOR.adapter_launch_s
"""Unsloth's models of 28 layers and 0.6 and 1.7 billion weights run equally fast on four cards of two generations:
6.9 ms a layer and micro-step, four passes with 14 matrices of LoRA in each."""
COMPILED_LAYER_S = 0.25e-3
"""torch.compile launches a layer in a few kernels: 1 ms a layer and micro-step. Assumed."""
FUSED_STREAM_SHARE = 0.5
"""Share of the bytes between linear layers that fused kernels still move: torchtune gains ×1.27 by compiling."""
BLOCK_LAUNCH_S = 5.9e-6
"""For one block of torch.block_diag: two slices, a copy, and their backward. Measured on a CPU with torch 2.13: a lower
bound, because nothing is launched there."""


@lru_cache(maxsize=1024)
def constants_of(gpu: GpuSpec, framework: str = "transformers") -> TimeConstants:
    """What holds for cards of its kind, or what was measured on this one; raises SpecError for other frameworks."""
    check_framework(framework)
    return _measured(with_framework(of_card(PRIOR, HOPPER_ATTENTION_SHARE, gpu), framework), gpu, framework)


def check_framework(framework: str) -> None:
    """Raise SpecError for another than those of FRAMEWORKS."""
    if not isinstance(framework, str) or framework not in FRAMEWORKS:
        near = did_you_mean(framework[:40], FRAMEWORKS) if isinstance(framework, str) else ""
        raise SpecError(f"unknown framework {written(framework)}.", near or f"Choose one of {', '.join(FRAMEWORKS)}.")


def of_card(prior: TimeConstants, hopper_attention: float, gpu: GpuSpec) -> TimeConstants:
    """The constants of all cards for one of them."""
    return prior._replace(
        matmul_share=prior.matmul_share * best_matmul(gpu),
        attention_share=hopper_attention if gpu.compute_capability in DATACENTER else prior.attention_share,
        band=BAND if gpu.steps_published else OTHER_CARD_BAND,
        calibrated=gpu.steps_published,
    )


def with_framework(constants: TimeConstants, framework: str) -> TimeConstants:
    if framework == "transformers":
        return constants
    layer_s = UNSLOTH_LAYER_S if framework == "unsloth" else COMPILED_LAYER_S
    return constants._replace(
        layer_launch_s=layer_s,
        adapter_launch_s=constants.adapter_launch_s if framework == "unsloth" else 0.0,
        stream_passes=constants.stream_passes * FUSED_STREAM_SHARE,
        dequantized_bytes=constants.dequantized_bytes if framework == "unsloth" else 2.5,
        quantized_launch_s=constants.quantized_launch_s if framework == "unsloth" else 0.0,
        fused_kernels=framework == "unsloth",
    )


def _measured(constants: TimeConstants, gpu: GpuSpec, framework: str) -> TimeConstants:
    """With the constants that the card's own runs decided, and their held-out error for a band.

    Those runs are of transformers: under other frameworks they tell of the card, not of their launches and kernels.
    """
    found = gpu.calibration
    if found is None or not found.time:
        return constants
    told: dict[str, Any] = {
        field: value for field, value in found.time if framework == "transformers" or field in OF_THE_CARD
    }
    if not told:
        return constants
    own = found.time_error is not None and framework == "transformers"
    band = max(found.time_error or 0.0, OWN_BAND) if own else constants.band
    return constants._replace(**told, band=band, calibrated=True)


# ── what a card's best product reaches ──────────────────────────────────────────────────────────────────────────────


def best_matmul(gpu: GpuSpec) -> float:
    """The rate of the best product on such a card by that of the data sheet: measured, of its row, or by its power."""
    if gpu.best_flops and gpu.tensor_flops:
        return gpu.best_flops / gpu.tensor_flops
    return gpu.best_matmul_share or OTHER_BEST_MATMUL * _powered(gpu)


def _powered(gpu: GpuSpec) -> float:
    """What is left of the rate where the card may not draw what that takes; 1 where it may, or nothing is known.

    A card of little power lowers its clocks under load. Power grows with rate × voltage², and voltage with the clock:
    in proportion to the cube of the rate where that is all, to the rate itself where the voltage cannot fall any
    further. With the square, which lies between (assumed), a card that would need P watts and may draw p reaches
    √(p / P).
    """
    per_joule = FLOPS_PER_JOULE.get(gpu.compute_capability or (0, 0))
    if not gpu.power_w or not gpu.tensor_flops or not per_joule:
        return 1.0
    return min(1.0, math.sqrt(gpu.power_w * per_joule / (OTHER_BEST_MATMUL * gpu.tensor_flops)))
