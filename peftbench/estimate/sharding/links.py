"""The links that GPUs talk over, within a machine and between machines, and how long exchanges take on them."""

from typing import NamedTuple

from peftbench.inputs.card.gpu import GpuSpec
from peftbench.inputs.recipe import ParallelismSpec

LINK_SHARE = 0.8
"""Share of NVLink's data sheet rate that NCCL reaches on large messages: results/published/links.csv."""
PEER_SHARE = 0.8
"""The same of PCIe where GPUs write into each other's memory."""
HOST_SHARE = 0.41
"""The same where they do not, so that every byte goes through the host's memory: GeForce cards, whose driver refuses
it, and most rented machines, which isolate their devices."""
LANE = {3: 8e9 / 8 * 128 / 130, 4: 16e9 / 8 * 128 / 130, 5: 32e9 / 8 * 128 / 130}
"""Bytes a second of a lane of PCIe by generation: transfers a second, 128 bits in 130 of them data (PCI-SIG)."""
USUAL_SLOT = "pcie4-x16"
"""For a card whose slot is not known. Assumed."""
BRIDGE = 50e9
"""NVLink asked for on a card that is sold without: a bridge between two (A40: 50.8 GB/s a direction measured)."""
MESH = 7
"""Others that each of eight AMD Instinct cards has a link to: fewer cards use fewer links."""
NODE_NETWORK = 12.5e9
"""A whole node's network, where no GPU has a card of its own: 100 Gbit/s, as AWS has for 4 or 8 A10G. Assumed."""
UNNAMED_BAND, NAMED_BAND = 6.0, 1.4
"""Factors either way in which the rate of PCIe lies: of a machine of which nothing is known, and of a slot that was
named. Of seven machines with published steps or rates three gave what is expected of the card's slot, and the others a
half, a third, a fifth and a seventh; slots through the host were measured at 0.32 to 0.56 of their rate."""


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
    share = PEER_SHARE if parallel.link and parallel.link.endswith("-p2p") else HOST_SHARE
    within = LINK_SHARE * _own_links(parallel, gpu) or share * slot_rate(parallel, gpu)
    if parallel.nodes == 1:
        return within
    return min(within, LINK_SHARE * (parallel.gpus_per_node * (gpu.network_bandwidth or 0) or NODE_NETWORK))


def link_band(parallel: ParallelismSpec, gpu: GpuSpec) -> float:
    """Factor either way in which the rate of the links lies; 1 where published steps were timed over such links."""
    if parallel.gpus == 1 or over_nvlink(parallel, gpu):
        return 1.0
    return NAMED_BAND if _slot_of(parallel.link) else UNNAMED_BAND


def host_rate(parallel: ParallelismSpec, gpu: GpuSpec) -> float:
    """Bytes a second between a GPU and the host's memory."""
    return PEER_SHARE * slot_rate(parallel, gpu)


def slot_rate(parallel: ParallelismSpec, gpu: GpuSpec) -> float:
    """Bytes a second of the slot that was named, or that the card is made for."""
    generation, lanes = (_slot_of(parallel.link) or gpu.pcie or USUAL_SLOT).removeprefix("pcie").split("-x")
    return LANE[int(generation)] * int(lanes)


def _slot_of(link: str | None) -> str:
    """ "pcie4-x8" of links that name one; "" of others."""
    return link.removesuffix("-p2p") if link and "-x" in link else ""


def over_nvlink(parallel: ParallelismSpec, gpu: GpuSpec) -> bool:
    """Whether the GPUs of a node reach each other over links of their own; AMD's Infinity Fabric is one."""
    return _own_links(parallel, gpu) > 0


def _own_links(parallel: ParallelismSpec, gpu: GpuSpec) -> float:
    """Bytes a second by the data sheet; 0 where a ring over the GPUs of a node crosses PCIe."""
    if parallel.link not in (None, "nvlink"):
        return 0.0
    if gpu.link_bandwidth is None:
        return BRIDGE if parallel.link == "nvlink" and parallel.gpus_per_node == 2 else 0.0
    joined = gpu.link_cards is None or 1 < parallel.gpus_per_node <= gpu.link_cards
    links = min(1.0, (parallel.gpus_per_node - 1) / MESH) if gpu.product.startswith("AMD") else 1.0
    return float(gpu.link_bandwidth) * links if joined else 0.0
