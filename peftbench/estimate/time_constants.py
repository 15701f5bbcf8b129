"""The few physical constants that step time depends on: what holds for kinds of cards, and for frameworks.

All are fitted by `check.throughput.fit_constants` to results/published/throughput.csv unless a line says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from peftbench.errors import SpecError, did_you_mean
from peftbench.estimate.host_costs import DEQUANTIZED_BYTES, HOST_COSTS
from peftbench.spec.gpu import GpuSpec

FRAMEWORKS = ("transformers", "unsloth", "torchtune")

HOPPER = (9, 0)
DATACENTER = ((9, 0), (10, 0), (10, 3))
BEST_MATMUL: dict[tuple[int, int] | None, float] = {(8, 0): 0.87, (9, 0): 0.80, (10, 0): 0.78, (10, 3): 0.78}
"""Best bfloat16 product ever measured by the data sheet's rate: A100 271 of 312, H100 794 of 989, B200 1,745 of 2,250
TFLOP/s (stas00/ml-engineering, compute/accelerator, MAMF)."""
AMD_BEST_MATMUL = 0.51
"""MI300X: 668 of 1,300 TFLOP/s (the same table)."""
GEFORCE_BEST_MATMUL: dict[tuple[int, int] | None, float] = {(12, 0): 1.15}
"""Clocks exceed the data sheet's boost: whole steps of published 8B runs on an RTX 5090 reach 0.84 to 0.86 of the rate,
while those on other cards stay at three quarters of the best product."""
OTHER_GEFORCE_BEST_MATMUL = 1.0
"""RTX 3090 and 4090: steps of 0.56 to 0.72 of the rate (answer.ai)."""
OTHER_BEST_MATMUL = 0.80
"""Assumed: the least of those measured."""

OF_THE_CARD = ("matmul_share",)
"""What runs under one framework tell of the card under another."""
MEASURED = ("a100-40gb", "a100-80gb", "h100-sxm", "l40s")
"""Cards that published steps were timed on; a test holds it to the file."""
BAND = 1.4
"""Factor either way in which nine of ten published steps lie, their source left out of the fit."""
UNCALIBRATED_BAND = 1.8
"""Factor on cards that no published step was timed on: assumed."""


@dataclass(frozen=True, kw_only=True)
class TimeConstants:
    """Of one card under one framework; `calibrate` replaces them by what its own runs say."""

    matmul_share: float
    """Of the data sheet's 16-bit rate that the products of a training step reach."""
    attention_share: float
    """Rate of fused attention by that of the other products."""
    bandwidth_share: float = 0.8
    """Of the data sheet's bandwidth that kernels reach which only move bytes. Assumed, as for latency."""
    layer_launch_s: float
    """What the host needs for one pass of one layer."""
    adapter_launch_s: float
    """For one pass of one matrix of an adapter."""
    quantized_launch_s: float = HOST_COSTS.quantized_linear_s
    """For one 4-bit linear layer, in forward, recomputation and backward once each: that of latency."""
    stream_passes: float
    """How often elementwise kernels read or write the inputs and outputs of the linear layers."""
    dequantized_bytes: float = DEQUANTIZED_BYTES
    """Bytes moved for each 4-bit weight of bitsandbytes that is written out in 16 bit: that of latency."""
    shard_launch_s: float
    """What DeepSpeed's hooks add to a layer in a micro-step."""
    fused_kernels: bool = False
    """The framework brings its own fused attention and cross-entropy, whatever the card and the recipe."""
    band: float = UNCALIBRATED_BAND
    calibrated: bool = False


PRIOR = TimeConstants(
    matmul_share=0.80,
    attention_share=0.48,
    layer_launch_s=1.2e-3,
    adapter_launch_s=0.044e-3,
    stream_passes=2.56,
    shard_launch_s=6.0e-3,
)
"""Of transformers with PEFT on a card whose products reach all of the data sheet's rate."""
HOPPER_ATTENTION_SHARE = 0.264
"""FlashAttention 2 does not use the instructions that Hopper's rate, and Blackwell's, is of."""
UNSLOTH_LAYER_S = 6.9e-3 / 4 - 14 * PRIOR.adapter_launch_s
"""Unsloth's models of 28 layers and 0.6 and 1.7 billion weights run equally fast on four cards of two generations:
6.9 ms a layer and micro-step, four passes with 14 matrices of LoRA in each."""
COMPILED_LAYER_S = 0.25e-3
"""torch.compile launches a layer in a few kernels: 1 ms a layer and micro-step. Assumed."""
FUSED_STREAM_SHARE = 0.5
"""Of the bytes between linear layers that fused kernels still move: torchtune's 1.27 times from compiling alone."""
GPTQ_BYTES = 10.7 * 2.5
"""Bytes moved for each weight of AutoGPTQ, which is unpacked by kernels of its own."""


@lru_cache(maxsize=1024)
def constants_of(gpu: GpuSpec, framework: str = "transformers") -> TimeConstants:
    """What holds for cards of its kind, or what was measured on this one; raises SpecError for other frameworks."""
    if framework not in FRAMEWORKS:
        raise SpecError(f"unknown framework {framework[:40]!r}.", did_you_mean(framework[:40], FRAMEWORKS))
    return _measured(with_framework(of_card(PRIOR, HOPPER_ATTENTION_SHARE, gpu), framework), gpu, framework)


def of_card(prior: TimeConstants, hopper_attention: float, gpu: GpuSpec) -> TimeConstants:
    """The constants of all cards for one of them."""
    known = gpu.name in MEASURED
    return replace(
        prior,
        matmul_share=prior.matmul_share * best_matmul(gpu),
        attention_share=hopper_attention if gpu.compute_capability in DATACENTER else prior.attention_share,
        band=BAND if known else UNCALIBRATED_BAND,
        calibrated=known,
    )


def best_matmul(gpu: GpuSpec) -> float:
    """The rate of the best product on such a card by that of the data sheet."""
    if gpu.compute_capability is None:
        return AMD_BEST_MATMUL if gpu.name.startswith("mi") else OTHER_BEST_MATMUL
    if "GeForce" in gpu.product:
        return GEFORCE_BEST_MATMUL.get(gpu.compute_capability, OTHER_GEFORCE_BEST_MATMUL)
    return BEST_MATMUL.get(gpu.compute_capability, OTHER_BEST_MATMUL)


def with_framework(constants: TimeConstants, framework: str) -> TimeConstants:
    if framework == "transformers":
        return constants
    layer_s = UNSLOTH_LAYER_S if framework == "unsloth" else COMPILED_LAYER_S
    return replace(
        constants,
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
    band = found.time_error if found.time_error and framework == "transformers" else constants.band
    return replace(constants, **told, band=band, calibrated=True)
