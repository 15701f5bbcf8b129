"""The device that cases run on, as the parent sees it: a CUDA card through NVML, or the CPU through the kernel."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress

from peftbench.base.errors import MeasureError
from peftbench.measure.device.host_memory import ProcessGroup, cpu_product, machine_bytes
from peftbench.measure.device.nvml import Card, Holder, open_card
from peftbench.measure.device.sampler import LostDevice, Reading

WSL = "Use Linux, or WSL on Windows."


class NvidiaCard:
    """A CUDA card, or one MIG instance of it."""

    kind = "cuda"

    def __init__(self, card: Card) -> None:
        if card.visible_bytes is None:
            what = f"the driver does not tell the memory of {card.product}."
            raise MeasureError(what, "It shares that of the machine, or is cut into MIG instances: name one of those.")
        self._card = card
        self.product, self.uuid, self.driver = card.product, card.uuid, card.driver
        self.memory_bytes = card.visible_bytes

    def reader(self, group: int) -> Callable[[], Reading]:
        """One reading a call."""
        return lambda: self._card.read(group)

    def used_bytes(self) -> int | None:
        """What all processes together hold."""
        return self._card.read(0).used_bytes

    def energy_j(self) -> float | None:
        """Since the driver was loaded; None also of a card that was lost, which the sampler has noticed."""
        with suppress(LostDevice):
            millijoules = self._card.energy_mj()
            return None if millijoules is None else millijoules / 1000
        return None

    def others(self) -> tuple[Holder, ...]:
        """Processes that hold memory of the card."""
        return self._card.others()


class Host:
    """The CPU and its memory, which every process shares: there is no baseline, only what the child itself holds."""

    kind = "cpu"
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


Device = NvidiaCard | Host
"""What cases run on. None is what a device does not report."""


def open_device(kind: str) -> Device:
    """The first card that CUDA shows, or the CPU.

    Raises MeasureError where there is no card to measure, and on Windows, whose processes have no groups.
    """
    if sys.platform == "win32":
        raise MeasureError("runs cannot be measured on Windows itself.", f"{WSL} plan and run --dry-run need neither.")
    return NvidiaCard(open_card()) if kind == "cuda" else Host()
