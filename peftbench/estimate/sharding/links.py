"""How fast the links are that GPUs talk over: within a machine, and between machines."""

from __future__ import annotations

from collections.abc import Mapping

from peftbench.inputs.card.gpu import GpuSpec
from peftbench.inputs.recipe.parallelism import ParallelismSpec

NVLINK = {
    "v100": 150e9, "a100": 300e9, "h100-sxm": 450e9, "h200": 450e9, "gh200": 450e9,
    "b200": 900e9, "b300": 900e9, "gb200": 900e9, "gb300": 900e9, "mi300x": 448e9, "mi325x": 448e9, "mi355x": 538e9,
}  # fmt: skip
"""Bytes a second that a card sends over its links, by the beginning of its name (data sheets: half of the total)."""
BRIDGED = {"h100-nvl": 300e9}
"""The same of cards that are sold with a bridge between two: a ring over more of them crosses PCIe."""
BRIDGE = 50e9
"""NVLink asked for on a card that is sold without: a bridge between two (RTX 3090: 56 GB/s a direction)."""
LINK_SHARE = 0.8
"""Of the data sheet's link rate that NCCL reaches on large messages. Assumed."""
PCIE = 20e9
"""What NCCL reaches over PCIe 4.0 × 16 between cards that reach each other's memory. Assumed."""
GEFORCE_PCIE = 12e9
"""GeForce drivers send every byte through the host's memory. Assumed."""
RAILS = {"v100": 12.5e9, "a100": 25e9}
"""Bytes a second of the network card beside each GPU that has NVLink: 100 Gbit/s in a DGX-2, 200 in a DGX A100."""
RAIL = 50e9
"""400 Gbit/s in a DGX H100 and what came after it, as in llm-foundry's runs on H100."""
NODE_NETWORK = 12.5e9
"""Of a whole node of other cards: 100 Gbit/s Ethernet, as AWS has for 4 or 8 A10G and L4. Assumed for all of them."""


def link_rate(parallel: ParallelismSpec, gpu: GpuSpec) -> float:
    """Bytes a second that each GPU receives: the slower of the links within a node and of the network between nodes.

    A ring over all GPUs crosses between two nodes once, on all of their network cards together.
    """
    within = LINK_SHARE * _card_link(gpu, parallel)
    if parallel.nodes == 1:
        return within
    return min(within, LINK_SHARE * _network(gpu, parallel.gpus_per_node))


def _network(gpu: GpuSpec, gpus_per_node: int) -> float:
    """Of a node."""
    if not _named(NVLINK, gpu):
        return NODE_NETWORK
    return gpus_per_node * RAILS.get(_named(RAILS, gpu), RAIL)


def over_nvlink(parallel: ParallelismSpec, gpu: GpuSpec) -> bool:
    """Whether the GPUs of a node reach each other over links of their own; AMD's Infinity Fabric is one."""
    return _card_link(gpu, parallel) != _pcie(gpu)


def _card_link(gpu: GpuSpec, parallel: ParallelismSpec) -> float:
    if parallel.link == "pcie":
        return _pcie(gpu)
    if name := _named(NVLINK, gpu):
        return NVLINK[name]
    bridge = BRIDGED.get(gpu.name, BRIDGE if parallel.link == "nvlink" else 0.0)
    return bridge if bridge and parallel.gpus_per_node == 2 else _pcie(gpu)


def _named(table: Mapping[str, float], gpu: GpuSpec) -> str:
    """The longest beginning of the card's name that the table has."""
    return max((name for name in table if gpu.name.startswith(name)), key=len, default="")


def _pcie(gpu: GpuSpec) -> float:
    return (GEFORCE_PCIE if "GeForce" in gpu.product else PCIE) / LINK_SHARE
