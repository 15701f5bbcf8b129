"""The device that cases run on, as the parent sees it: a CUDA card through NVML, or the CPU through the kernel."""

from __future__ import annotations

import sys
from collections.abc import Callable

from peftbench.base.errors import MeasureError
from peftbench.inputs.case import DeviceType
from peftbench.libraries.worker import WSL
from peftbench.measure.device.host_memory import ProcessGroup, cpu_product, machine_bytes
from peftbench.measure.device.nvml import Card, Holder, open_card
from peftbench.measure.device.sampler import Reading


class Host:
    """The CPU and its memory, which every process shares: there is no baseline, only what the child itself holds."""

    kind: DeviceType = "cpu"
    uuid = driver = None

    def __init__(self) -> None:
        self.product, self.memory_bytes = cpu_product(), machine_bytes()

    def reader(self, group: int) -> Callable[[], Reading]:
        """The resident sets of the group's processes."""
        return ProcessGroup(group).read

    def used_bytes(self) -> int | None:
        """Unknown: other processes come and go."""
        return None

    def energy_j(self) -> float | None:
        """Unknown."""
        return None

    def others(self) -> tuple[Holder, ...]:
        """Nobody is in the way."""
        return ()


Device = Card | Host
"""What cases run on. None is what a device does not report."""


def open_device(kind: str) -> Device:
    """The first card that CUDA shows, or the CPU.

    Raises MeasureError where there is no card to measure, and on Windows, whose processes have no groups.
    """
    if sys.platform == "win32":
        raise MeasureError("runs cannot be measured on Windows itself.", f"{WSL} plan and run --dry-run need neither.")
    if kind == "cpu":
        return Host()
    card = open_card()
    if card.memory_bytes is None:
        what = f"the driver does not report the memory of {card.product}."
        raise MeasureError(what, "It shares that of the machine, or is cut into MIG instances: name one of those.")
    return card
