"""The links that GPUs talk over, within a machine and between machines, and how long exchanges take on them."""

from typing import NamedTuple

from peftbench.inputs.card.gpu import GpuSpec
from peftbench.inputs.recipe import ParallelismSpec

LINK_SHARE = 0.8
"""Share of the data sheet's link rate that NCCL reaches on large messages. Assumed."""
BRIDGE = 50e9
"""NVLink asked for on a card that is sold without: a bridge between two (RTX 3090: 56 GB/s a direction)."""
PCIE = 20e9
"""What NCCL reaches over PCIe 4.0 × 16 where a card's row says nothing. Assumed."""
NODE_NETWORK = 12.5e9
"""A whole node's network, where no GPU has a card of its own: 100 Gbit/s, as AWS has for 4 or 8 A10G. Assumed."""


class Traffic(NamedTuple):
    """Seconds of one GPU."""

    micro_step_s: float
    """Gathered weights and scattered gradients of each micro-step."""
    step_s: float
    """Gradients and weights that are exchanged once an optimizer step."""


def traffic(
    parallel: ParallelismSpec, gpu: GpuSpec, trained_bytes: int, gathered_bytes: int, once: bool = False
) -> Traffic:
    """Time the collectives: a ring moves (n - 1) / n of the bytes for a gather or a scatter, twice that for a sum.

    `once`: FSDP scatters gradients in the last micro-step only.
    """
    n = parallel.gpus
    if n == 1:
        return Traffic(0.0, 0.0)
    seconds = (n - 1) / n / link_rate(parallel, gpu)
    scatter, gather = trained_bytes * seconds, gathered_bytes * seconds
    scatters, exchange = (0.0, scatter) if once else (scatter, 0.0)
    return {
        "ddp": Traffic(0.0, 2 * scatter),
        "zero1": Traffic(0.0, 2 * scatter),
        "zero2": Traffic(scatter, scatter),
        "zero3": Traffic(2 * gather + scatter, 0.0),
        "fsdp": Traffic(2 * gather + scatters, exchange),
        "fsdp-grad-op": Traffic(gather + scatters, exchange),
    }[parallel.strategy]


def link_rate(parallel: ParallelismSpec, gpu: GpuSpec) -> float:
    """Bytes a second that each GPU receives: the slower of the links within a node and of the network between nodes.

    A ring over all GPUs crosses between two nodes once, on all of their network cards together.
    """
    within = LINK_SHARE * _own_links(parallel, gpu) or gpu.pcie_bandwidth or PCIE
    if parallel.nodes == 1:
        return within
    return min(within, LINK_SHARE * (parallel.gpus_per_node * (gpu.network_bandwidth or 0) or NODE_NETWORK))


def over_nvlink(parallel: ParallelismSpec, gpu: GpuSpec) -> bool:
    """Whether the GPUs of a node reach each other over links of their own; AMD's Infinity Fabric is one."""
    return _own_links(parallel, gpu) > 0


def _own_links(parallel: ParallelismSpec, gpu: GpuSpec) -> float:
    """Bytes a second by the data sheet; 0 where a ring over the GPUs of a node crosses PCIe."""
    if parallel.link == "pcie":
        return 0.0
    if gpu.link_bandwidth is None:
        return BRIDGE if parallel.link == "nvlink" and parallel.gpus_per_node == 2 else 0.0
    joined = gpu.link_cards is None or 1 < parallel.gpus_per_node <= gpu.link_cards
    return float(gpu.link_bandwidth) if joined else 0.0
