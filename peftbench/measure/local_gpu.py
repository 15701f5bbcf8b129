"""The NVIDIA cards in this machine and what others hold of them: asks NVML, or else nvidia-smi."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from peftbench.errors import MeasureError
from peftbench.spec.cuda_context import context_bytes
from peftbench.spec.gpu import GpuSpec
from peftbench.units import MIB

NAME_A_CARD = "Name a card instead, as in --gpu t4, or give its memory: --gpu-memory 16GiB."
NVIDIA_SMI_TIMEOUT_S = 20
"""Several seconds are normal on a machine of many cards without the persistence daemon."""

_QUERY = "name,uuid,memory.total,memory.reserved,memory.used,compute_cap"
_CORES_PER_MULTIPROCESSOR = {(6, 0): 64, (7, 0): 64, (7, 5): 64, (8, 0): 64}
"""Compute capabilities below 128 float32 cores (CUDA C++ Programming Guide, arithmetic throughput)."""


@dataclass(frozen=True)
class Reading:
    """One card as the driver describes it; None is what the driver does not tell."""

    product: str
    uuid: str
    total_bytes: int
    reserved_bytes: int | None
    used_bytes: int
    compute_capability: tuple[int, int]
    cores: int | None
    asked: str
    """Who answered: "NVML" or "nvidia-smi"."""


def find_local_gpus() -> tuple[GpuSpec, ...]:
    """Every card that CUDA shows to a process here, in the order of CUDA_VISIBLE_DEVICES.

    Numbers count in PCI bus order: CUDA's own order on equal cards or under CUDA_DEVICE_ORDER=PCI_BUS_ID.
    Raises MeasureError when there is no card or nobody to ask.
    """
    setting = os.environ.get("CUDA_VISIBLE_DEVICES")
    readings = _read_cards()
    if not readings:
        raise MeasureError("there is no NVIDIA card in this machine.", NAME_A_CARD)
    visible = _visible(readings, setting)
    if not visible:
        raise MeasureError(
            f"CUDA_VISIBLE_DEVICES={setting!r} hides every card of this machine ({len(readings)}).",
            f"Unset it or name a card by number or UUID. {NAME_A_CARD}",
        )
    return tuple(_spec(reading) for reading in visible)


def _read_cards() -> list[Reading]:
    try:
        return _read_nvml()
    except MeasureError:
        program = shutil.which("nvidia-smi")
        if program is None:
            raise
    return _read_nvidia_smi(program)


def _visible(readings: list[Reading], setting: str | None) -> list[Reading]:
    """Choose as CUDA does: an entry that names no card hides itself and everything after it."""
    if setting is None:
        return readings
    chosen: list[Reading] = []
    for entry in setting.split(","):
        named = [r for number, r in enumerate(readings) if _names(entry.strip(), number, r.uuid)]
        if len(named) != 1:
            break
        chosen += named
    return chosen


def _names(entry: str, number: int, uuid: str) -> bool:
    return entry == str(number) or (entry.startswith("GPU-") and uuid.startswith(entry))


def _spec(reading: Reading) -> GpuSpec:
    multiprocessors = _multiprocessors(reading.cores, reading.compute_capability)
    if reading.reserved_bytes is None:
        source = f"{reading.asked} on this machine: total; what the driver reserves is unknown"
    else:
        source = f"{reading.asked} on this machine: total - reserved; torch may see some MiB less"
    return GpuSpec(
        name="local",
        product=reading.product,
        memory_bytes=reading.total_bytes - (reading.reserved_bytes or 0),
        memory_source=source,
        compute_capability=reading.compute_capability,
        multiprocessors=multiprocessors,
        context_bytes=context_bytes(multiprocessors),
        in_use_bytes=reading.used_bytes,
    )


def _multiprocessors(cores: int | None, compute_capability: tuple[int, int]) -> int | None:
    return cores // _CORES_PER_MULTIPROCESSOR.get(compute_capability, 128) if cores else None


# NVML ────────────────────────────────────────────────────────────────────────


def _read_nvml() -> list[Reading]:
    pynvml = _import_pynvml()
    try:
        pynvml.nvmlInit()
        try:
            return [_read_handle(pynvml, number) for number in range(pynvml.nvmlDeviceGetCount())]
        finally:
            pynvml.nvmlShutdown()
    except Exception as error:  # another module of this name may fail in any way
        raise _nvml_failed(error) from None


def _import_pynvml() -> Any:
    try:
        import pynvml
    except ImportError:
        raise MeasureError(
            "cannot ask for the card in this machine: there is neither nvidia-ml-py nor nvidia-smi.",
            f"With an NVIDIA card: pip install nvidia-ml-py. {NAME_A_CARD}",
        ) from None
    return pynvml


def _read_handle(pynvml: Any, number: int) -> Reading:
    """Version 2 of the memory query keeps what the driver reserves apart from what processes use."""
    handle = pynvml.nvmlDeviceGetHandleByIndex(number)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)
    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    return Reading(
        product=_text(pynvml.nvmlDeviceGetName(handle)),
        uuid=_text(pynvml.nvmlDeviceGetUUID(handle)),
        total_bytes=memory.total,
        reserved_bytes=memory.reserved,
        used_bytes=memory.used,
        compute_capability=(major, minor),
        cores=_cores(pynvml, handle),
        asked="NVML",
    )


def _cores(pynvml: Any, handle: Any) -> int | None:
    try:
        return int(pynvml.nvmlDeviceGetNumGpuCores(handle))
    except pynvml.NVMLError:
        return None


def _text(name: str | bytes) -> str:
    """Older releases of nvidia-ml-py return bytes."""
    return name.decode() if isinstance(name, bytes) else name


def _nvml_failed(error: Exception) -> MeasureError:
    if _is_shadowed():
        return MeasureError(
            f"the unofficial distribution `pynvml` stands in the way of nvidia-ml-py ({error}).",
            f"pip uninstall pynvml && pip install --force-reinstall nvidia-ml-py. {NAME_A_CARD}",
        )
    return MeasureError(f"found no usable NVIDIA card in this machine (NVML: {error}).", NAME_A_CARD)


def _is_shadowed() -> bool:
    """Before version 12 the distribution `pynvml` had a module of its own; now it uses nvidia-ml-py."""
    try:
        return int(metadata.version("pynvml").split(".")[0]) < 12
    except (metadata.PackageNotFoundError, ValueError):
        return False


# nvidia-smi ──────────────────────────────────────────────────────────────────


def _read_nvidia_smi(program: str) -> list[Reading]:
    lines = _run([program, f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]).splitlines()
    try:
        return [_parse(row) for row in csv.reader(lines, skipinitialspace=True) if row]
    except ValueError:
        raise MeasureError(f"cannot read what nvidia-smi says: {lines[0]!r}.", NAME_A_CARD) from None


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=NVIDIA_SMI_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        raise MeasureError(f"nvidia-smi gave no answer in {NVIDIA_SMI_TIMEOUT_S} s.", NAME_A_CARD) from None
    except OSError as error:
        raise MeasureError(f"nvidia-smi does not run ({error}).", NAME_A_CARD) from None
    if done.returncode:
        said = (done.stdout + done.stderr).strip().partition("\n")[0]
        raise MeasureError(f"nvidia-smi failed: {said or f'exit code {done.returncode}'}", NAME_A_CARD)
    return done.stdout


def _parse(row: list[str]) -> Reading:
    product, uuid, total, reserved, used, capability = row
    major, minor = capability.split(".")
    return Reading(
        product=product,
        uuid=uuid,
        total_bytes=int(total) * MIB,
        reserved_bytes=int(reserved) * MIB if reserved.isdigit() else None,
        used_bytes=int(used) * MIB,
        compute_capability=(int(major), int(minor)),
        cores=None,
        asked="nvidia-smi",
    )
