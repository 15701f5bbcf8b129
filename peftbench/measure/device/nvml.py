"""An NVIDIA card as its driver describes it, read again and again while something runs on it: NVML's side of a Sampler.

What a driver or a card does not report is None, and is not asked for again: a MIG instance has no power, a card before
Volta no energy counter, WSL and containers hide what single processes hold.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from typing import Any

from peftbench.base.errors import MeasureError, install_hint
from peftbench.inputs.case import DeviceType
from peftbench.measure.device.sampler import LostDevice, Reading

VARIABLE = "CUDA_VISIBLE_DEVICES"
INSTEAD = "Ask the driver itself with nvidia-smi; a case with `device: cpu` needs no card."
SLOW_PERIOD_S = 0.1
"""Power, utilization, temperature and clock: drivers renew them 1 to 10 times a second."""

_GONE = ("UNINITIALIZED", "DRIVER_NOT_LOADED", "GPU_IS_LOST", "GPU_NOT_FOUND", "RESET_REQUIRED",
         "LIB_RM_VERSION_MISMATCH")  # fmt: skip
_NEVER = ("NOT_SUPPORTED", "FUNCTION_NOT_FOUND", "NO_PERMISSION", "INVALID_ARGUMENT", "ARGUMENT_VERSION_MISMATCH",
          "DEPRECATED")  # fmt: skip
"""Answers that will be the same the next time."""
_COMPUTE = "nvmlDeviceGetComputeRunningProcesses_v3"
_GRAPHICS = "nvmlDeviceGetGraphicsRunningProcesses_v3"


@dataclass(frozen=True)
class Holder:
    """A process that holds memory of a card."""

    pid: int
    used_bytes: int | None
    """None where the driver does not report it apart."""


class Card:
    """One card, or one MIG instance of it, for as long as it is open."""

    kind: DeviceType = "cuda"

    def __init__(self, pynvml: Any, uuid: str) -> None:
        self._pynvml = pynvml
        self._handle = _handle(pynvml, uuid)
        self._refused: dict[str, str] = {}
        self._slow: tuple[float | None, float | None, float | None, int | None] = (None, None, None, None)
        self._slow_due_s = time.monotonic()
        self._gone = _codes(pynvml, _GONE)
        self._never = _codes(pynvml, _NEVER)
        self.uuid = uuid
        self.product = text(pynvml.nvmlDeviceGetName(self._handle))
        self.driver = text(pynvml.nvmlSystemGetDriverVersion())
        memory = self._memory()
        self.memory_bytes = None if memory is None else int(memory.total) - int(getattr(memory, "reserved", 0))
        """Less what the driver reserves, which drivers before 510 do not report: what torch sees, or some MiB more.
        None where the card has no memory of its own."""

    def __enter__(self) -> Card:
        return self

    def __exit__(self, *_: object) -> None:
        """Give NVML back; a driver that is gone has nothing to give back to."""
        with suppress(self._pynvml.NVMLError):
            self._pynvml.nvmlShutdown()

    def read(self, group: int) -> Reading:
        """The card now, and what the process group `group` holds of it. Raises LostDevice when the card is gone."""
        memory = self._memory()
        power_w, utilization, temperature_c, clock_mhz = self._read_slow()
        used_bytes = None if memory is None else int(memory.used)
        process_bytes = _held(self._holders(_COMPUTE), group)
        return Reading(used_bytes, process_bytes, power_w, utilization, temperature_c, clock_mhz)

    def reader(self, group: int) -> Callable[[], Reading]:
        """One reading a call."""
        return partial(self.read, group)

    def used_bytes(self) -> int | None:
        """What all processes together hold."""
        return self.read(0).used_bytes

    def energy_j(self) -> float | None:
        """Since the driver was loaded; None for a MIG instance, for cards before Volta, and for a card that was lost,
        which the sampler has noticed."""
        with suppress(LostDevice):
            millijoules = self._ask("nvmlDeviceGetTotalEnergyConsumption")
            return None if millijoules is None else int(millijoules) / 1000
        return None

    def others(self, group: int | None = None) -> tuple[Holder, ...]:
        """Processes on the card, those of the group `group` left out; in a container those outside may be missing."""
        found = {holder.pid: holder for name in (_GRAPHICS, _COMPUTE) for holder in self._holders(name) or ()}
        return tuple(holder for holder in found.values() if group is None or not _belongs(holder.pid, group))

    @property
    def refused(self) -> Mapping[str, str]:
        """Functions of NVML that this driver or card refused for good, each with the reason."""
        return dict(self._refused)

    def _memory(self) -> Any:
        """Version 2 keeps what the driver reserves apart; version 1, of drivers before 510, counts it as used."""
        versioned = self._ask("nvmlDeviceGetMemoryInfo", self._pynvml.nvmlMemory_v2)
        return versioned or self._ask("nvmlDeviceGetMemoryInfo")

    def _read_slow(self) -> tuple[float | None, float | None, float | None, int | None]:
        now = time.monotonic()
        if now >= self._slow_due_s:
            self._slow_due_s = now + SLOW_PERIOD_S
            milliwatts = self._ask("nvmlDeviceGetPowerUsage")
            rates = self._ask("nvmlDeviceGetUtilizationRates")
            celsius = self._ask("nvmlDeviceGetTemperature", self._pynvml.NVML_TEMPERATURE_GPU)
            megahertz = self._ask("nvmlDeviceGetClockInfo", self._pynvml.NVML_CLOCK_SM)
            self._slow = (
                None if milliwatts is None else milliwatts / 1000,
                None if rates is None else rates.gpu / 100,
                None if celsius is None else float(celsius),
                megahertz,
            )
        return self._slow

    def _holders(self, name: str) -> tuple[Holder, ...] | None:
        processes = self._ask(name)
        return None if processes is None else tuple(Holder(p.pid, p.usedGpuMemory) for p in processes)

    def _ask(self, name: str, *arguments: int) -> Any:
        """What a function of NVML says of the card; None where it has no answer, now or ever."""
        key = f"{name}{arguments or ''}"
        if key in self._refused:
            return None
        try:
            return getattr(self._pynvml, name)(self._handle, *arguments)
        except self._pynvml.NVMLError as error:
            if error.value in self._gone:
                raise LostDevice(f"the card was lost (NVML: {error}).", "See the kernel's log: dmesg.") from None
            if error.value in self._never:
                self._refused[key] = str(error)
        except AttributeError:
            self._refused[key] = "this nvidia-ml-py is too old"
        return None


def open_card(uuid: str | None = None) -> Card:
    """The card or MIG instance of this UUID, or else the first one that CUDA shows to a process here.

    Raises MeasureError when there is none, or no NVML to ask.
    """
    pynvml = open_nvml(INSTEAD)
    try:
        return Card(pynvml, uuid or _shown(pynvml)[0])
    except Exception as error:
        _shut_down(pynvml)
        raise _as_measure_error(error) from None


def list_cards() -> tuple[str, ...]:
    """UUIDs of the cards and MIG instances that CUDA shows, in its order; raises MeasureError when there is none."""
    pynvml = open_nvml(INSTEAD)
    try:
        return _shown(pynvml)
    except Exception as error:
        raise _as_measure_error(error) from None
    finally:
        _shut_down(pynvml)


def _handle(pynvml: Any, uuid: str) -> Any:
    try:
        return pynvml.nvmlDeviceGetHandleByUUID(uuid)
    except pynvml.NVMLError as error:
        raise MeasureError(f"no card {uuid} can be opened in this machine (NVML: {error}).", INSTEAD) from None


def _as_measure_error(error: Exception) -> MeasureError:
    return error if isinstance(error, MeasureError) else nvml_failed(error, INSTEAD)


def _shut_down(pynvml: Any) -> None:
    """Whatever stands in the place of nvidia-ml-py may lack that too."""
    shut_down = getattr(pynvml, "nvmlShutdown", None)
    if shut_down:
        shut_down()


def _shown(pynvml: Any) -> tuple[str, ...]:
    """A card that is cut into MIG instances shows the first one of them."""
    handles = [pynvml.nvmlDeviceGetHandleByIndex(number) for number in range(pynvml.nvmlDeviceGetCount())]
    cards = [text(pynvml.nvmlDeviceGetUUID(handle)) for handle in handles]
    cut = {uuid: _instances(pynvml, handle) for uuid, handle in zip(cards, handles, strict=True)}
    instances = [instance for uuid in cards for instance in cut[uuid]]
    setting = os.environ.get(VARIABLE)
    named = [[*cards, *instances][number] for number in choose_visible(cards, setting, instances)]
    if not named:
        why = f"{VARIABLE}={setting!r} hides every card of this machine ({len(cards)})." if cards else "none is there."
        raise MeasureError(f"no card to measure: {why}", f"Unset it or name a card by number or UUID. {INSTEAD}")
    return tuple(cut[uuid][0] if cut.get(uuid) else uuid for uuid in named)


def _instances(pynvml: Any, handle: Any) -> list[str]:
    """UUIDs of a card's MIG instances. Places of instances that were not made are empty."""
    found: list[str] = []
    with suppress(pynvml.NVMLError):
        for place in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
            with suppress(pynvml.NVMLError):
                instance = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, place)
                found.append(text(pynvml.nvmlDeviceGetUUID(instance)))
    return found


def _codes(pynvml: Any, names: tuple[str, ...]) -> frozenset[int]:
    """The numbers of NVML's errors, as far as this nvidia-ml-py knows them."""
    known = (getattr(pynvml, f"NVML_ERROR_{name}", None) for name in names)
    return frozenset(code for code in known if code is not None)


def _held(holders: tuple[Holder, ...] | None, group: int) -> int | None:
    """Bytes of the group's processes together; None when the driver lists none of them or reports no size.

    In a container the driver may list nothing, or numbers that mean nothing there.
    """
    held = [holder.used_bytes for holder in holders or () if _belongs(holder.pid, group)]
    known = [used for used in held if used is not None]
    return sum(known) if known and len(known) == len(held) else None


def _belongs(pid: int, group: int) -> bool:
    try:
        return os.getpgid(pid) == group
    except OSError:
        return False
    except AttributeError:  # Windows knows no process groups
        return pid == group


# ── the library ─────────────────────────────────────────────────────────────────────────────────────────────────────


def open_nvml(instead: str) -> Any:
    """The module pynvml after nvmlInit(): whoever asked calls its nvmlShutdown().

    Raises MeasureError whose hint ends with `instead`: what else can be typed.
    """
    try:
        import pynvml

        pynvml.nvmlInit()
    except ImportError:
        what = "cannot ask for the card in this machine: nvidia-ml-py is not installed."
        raise MeasureError(what, f"{install_hint('nvidia-ml-py')}. {instead}") from None
    except Exception as error:  # another module of this name may fail in any way
        raise nvml_failed(error, instead) from None
    return pynvml


UNSHADOW = "Run: pip uninstall pynvml && pip install --force-reinstall nvidia-ml-py"


def nvml_failed(error: Exception, instead: str) -> MeasureError:
    """What an error of pynvml means to a user; the unofficial distribution of that name is named."""
    if is_shadowed():
        what = f"the unofficial distribution `pynvml` stands in the way of nvidia-ml-py ({error})."
        return MeasureError(what, f"{UNSHADOW}. {instead}")
    return MeasureError(f"found no usable NVIDIA card in this machine (NVML: {error}).", instead)


def is_shadowed() -> bool:
    """Before version 12 the distribution `pynvml` had a module of its own; now it uses nvidia-ml-py."""
    try:
        return int(metadata.version("pynvml").split(".")[0]) < 12
    except (metadata.PackageNotFoundError, ValueError):
        return False


def text(name: str | bytes) -> str:
    """Older releases of nvidia-ml-py return bytes."""
    return name.decode() if isinstance(name, bytes) else name


# ── which cards a process may use ───────────────────────────────────────────────────────────────────────────────────


def choose_visible(cards: Sequence[str], setting: str | None, instances: Sequence[str] = ()) -> tuple[int, ...]:
    """Positions in `cards` and, counted on, in `instances` that a setting names, in its order.

    Both are UUIDs: "GPU-…" of cards in PCI bus order and "MIG-…" of MIG instances. A number means a card, the
    beginning of a UUID whatever it fits alone; an entry that names nothing hides itself and everything after it.
    Source: CUDA C++ Programming Guide, CUDA environment variables.
    """
    if setting is None:
        return tuple(range(len(cards)))
    chosen: list[int] = []
    for entry in map(str.strip, setting.split(",")):
        named = [
            number
            for number, uuid in enumerate([*cards, *instances])
            if (entry == str(number) and number < len(cards))
            or (entry.startswith(("GPU-", "MIG-")) and uuid.startswith(entry))
        ]
        if len(named) != 1:
            break
        chosen += named
    return tuple(chosen)
