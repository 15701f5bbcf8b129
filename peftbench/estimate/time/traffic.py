"""What several GPUs send each other in a training step, and how long that takes."""

from __future__ import annotations

from typing import NamedTuple

from peftbench.estimate.sharding.links import PCIE, link_rate
from peftbench.estimate.time.flops import StepWork
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.inputs.recipe.parallelism import ParallelismSpec

HOST = 20e9
"""Bytes a second of the host's memory for each GPU that keeps its optimizer there: a host's 200 GB/s, shared by some.
Assumed; torchtune's 70B run with offload agrees."""


class Traffic(NamedTuple):
    """Seconds of one GPU."""

    micro_step_s: float
    """Gathered weights and scattered gradients of each micro-step."""
    step_s: float
    """Gradients and weights that are exchanged once an optimizer step."""
    offload_s: float
    """Weights, gradients and updates in the host's memory, once an optimizer step."""


def traffic(work: StepWork, accumulated: int, parallel: ParallelismSpec, gpu: GpuSpec) -> Traffic:
    """Time the collectives: a ring moves (n - 1) / n of the bytes for a gather or a scatter, twice that for a sum."""
    n = parallel.gpus
    if n == 1:
        return Traffic(0.0, 0.0, _offload_s(work, accumulated, parallel))
    seconds = (n - 1) / n / link_rate(parallel, gpu)
    scatter, gather = work.trained_bytes * seconds, work.gathered_bytes * seconds
    once = {
        "ddp": (0.0, 2 * scatter),
        "zero1": (0.0, 2 * scatter),
        "zero2": (scatter, scatter),
        "zero3": (2 * gather + scatter, 0.0),
        "fsdp": (2 * gather + scatter, 0.0),
        "fsdp-grad-op": (gather + scatter, 0.0),
    }[parallel.strategy]
    return Traffic(*once, _offload_s(work, accumulated, parallel))


def _offload_s(work: StepWork, accumulated: int, parallel: ParallelismSpec) -> float:
    """Every GPU fetches its part for both passes, returns gradients, and updates in the host's memory."""
    if not parallel.cpu_offload:
        return 0.0
    moved = accumulated * (2 * work.gathered_bytes + work.trained_bytes)
    return (moved / PCIE + work.optimizer_bytes / HOST) / parallel.gpus
