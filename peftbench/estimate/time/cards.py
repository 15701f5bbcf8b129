"""What a card's best matrix product reaches of its data sheet's rate: as measured, or by its kind and its power.

A card of little power lowers its clocks under load. Power grows with rate × voltage², and voltage with the clock: in
proportion to the cube of the rate where that is all, to the rate itself where the voltage cannot fall any further. With
the square, which lies between (assumed), a card that would need P watts and may draw p reaches √(p / P).
"""

from __future__ import annotations

import math

from peftbench.inputs.card.gpu import GpuSpec

DATACENTER = ((9, 0), (10, 0), (10, 3))
GEFORCE_BEST_MATMUL: dict[tuple[int, int] | None, float] = {(12, 0): 1.15}
"""Clocks exceed the data sheet's boost: whole steps of published 8B runs on an RTX 5090 reach 0.84 to 0.86 of the rate,
while those on other cards stay at three quarters of the best product."""
OTHER_GEFORCE_BEST_MATMUL = 1.0
"""RTX 3090 and 4090: steps of 0.56 to 0.72 of the rate (answer.ai). The catalogue's rate is that with float32
accumulation, half of what the tensor cores do: power does not limit it."""
AMD_BEST_MATMUL = 0.51
"""Of a card that nobody measured: that of the MI300X, the least of its kind."""
OTHER_BEST_MATMUL = 0.80
"""Assumed: as on the H100; 0.87 was measured on the A100, 0.78 on the B200 (stas00/ml-engineering, MAMF)."""
FLOPS_PER_JOULE = {
    (7, 0): 0.333e12, (7, 5): 0.333e12, (8, 6): 0.413e12, (8, 9): 0.827e12, (9, 0): 1.135e12, (12, 0): 0.672e12,
}  # fmt: skip
"""By the card of the generation with the most power: V100 125 TFLOP/s in 300 W (T4 is made alike), A6000 154.8 in 300,
L40S 362 in 350 and RTX PRO 6000 503.8 in 600 W, at OTHER_BEST_MATMUL; the H100 SXM's measured 794.5 in 700 W."""


def best_matmul(gpu: GpuSpec) -> float:
    """The rate of the best product on such a card by that of the data sheet."""
    if gpu.best_flops and gpu.tensor_flops:
        return gpu.best_flops / gpu.tensor_flops
    if gpu.compute_capability is None:
        return AMD_BEST_MATMUL if gpu.product.startswith("AMD") else OTHER_BEST_MATMUL
    if "GeForce" in gpu.product:
        return GEFORCE_BEST_MATMUL.get(gpu.compute_capability, OTHER_GEFORCE_BEST_MATMUL)
    return OTHER_BEST_MATMUL * _powered(gpu)


def _powered(gpu: GpuSpec) -> float:
    """What is left of the rate where the card may not draw what that takes; 1 where it may, or nothing is known."""
    per_joule = FLOPS_PER_JOULE.get(gpu.compute_capability or (0, 0))
    if not gpu.power_w or not gpu.tensor_flops or not per_joule:
        return 1.0
    return min(1.0, math.sqrt(gpu.power_w * per_joule / (OTHER_BEST_MATMUL * gpu.tensor_flops)))
