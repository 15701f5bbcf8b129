"""The NVIDIA cards in this machine and what others hold of them: asks NVML, or else nvidia-smi."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
from dataclasses import dataclass
from typing import Any

from peftbench.base.errors import MeasureError
from peftbench.base.units import MIB
from peftbench.inputs.card.cuda_context import context_bytes
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.measure.device.nvml import VARIABLE, choose_visible, nvml_failed, open_nvml, text

NAME_A_CARD = "Name a card instead, as in --gpu t4, or give its memory: --gpu-memory 16GiB."
NVIDIA_SMI_TIMEOUT_S = 20
"""Several seconds are normal on a machine of many cards without the persistence daemon."""

_QUERY = "name,uuid,memory.total,memory.reserved,memory.used,compute_cap"
_CORES_PER_MULTIPROCESSOR = {(6, 0): 64, (7, 0): 64, (7, 5): 64, (8, 0): 64}
"""Compute capabilities below 128 float32 cores (CUDA C++ Programming Guide, arithmetic throughput)."""


@dataclass(frozen=True)
class Reading:
    """One card as the driver describes it; None is what the driver does not report."""

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
    setting = os.environ.get(VARIABLE)
    readings = _read_cards()
    if not readings:
        raise MeasureError("there is no NVIDIA card in this machine.", NAME_A_CARD)
    visible = [readings[number] for number in choose_visible([r.uuid for r in readings], setting)]
    if not visible:
        raise MeasureError(
            f"{VARIABLE}={setting!r} hides every card of this machine ({len(readings)}).",
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


def _spec(reading: Reading) -> GpuSpec:
    capability = reading.compute_capability
    multiprocessors = reading.cores // _CORES_PER_MULTIPROCESSOR.get(capability, 128) if reading.cores else None
    if reading.reserved_bytes is None:
        source = f"{reading.asked} on this machine: total; what the driver reserves is unknown"
    else:
        source = f"{reading.asked} on this machine: total - reserved; torch may see some MiB less"
    return GpuSpec(
        name="local", product=reading.product, compute_capability=capability, multiprocessors=multiprocessors,
        memory_bytes=reading.total_bytes - (reading.reserved_bytes or 0), memory_source=source,
        context_bytes=context_bytes(multiprocessors, capability), in_use_bytes=reading.used_bytes,
    )  # fmt: skip


# NVML ────────────────────────────────────────────────────────────────────────


def _read_nvml() -> list[Reading]:
    pynvml = open_nvml(NAME_A_CARD)
    try:
        try:
            return [_read_handle(pynvml, number) for number in range(pynvml.nvmlDeviceGetCount())]
        finally:
            pynvml.nvmlShutdown()
    except Exception as error:  # another module of this name may fail in any way
        raise nvml_failed(error, NAME_A_CARD) from None


def _read_handle(pynvml: Any, number: int) -> Reading:
    """Version 2 of the memory query keeps what the driver reserves apart from what processes use."""
    handle = pynvml.nvmlDeviceGetHandleByIndex(number)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)
    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    return Reading(
        product=text(pynvml.nvmlDeviceGetName(handle)), uuid=text(pynvml.nvmlDeviceGetUUID(handle)),
        total_bytes=memory.total, reserved_bytes=memory.reserved, used_bytes=memory.used,
        compute_capability=(major, minor), cores=_cores(pynvml, handle), asked="NVML",
    )  # fmt: skip


def _cores(pynvml: Any, handle: Any) -> int | None:
    try:
        return int(pynvml.nvmlDeviceGetNumGpuCores(handle))
    except pynvml.NVMLError:
        return None


# nvidia-smi ──────────────────────────────────────────────────────────────────


def _read_nvidia_smi(program: str) -> list[Reading]:
    lines = _run([program, f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]).splitlines()
    try:
        return [_parse(row) for row in csv.reader(lines, skipinitialspace=True) if row]
    except ValueError:
        raise MeasureError(f"cannot read what nvidia-smi says: {lines[0]!r}.", NAME_A_CARD) from None


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=NVIDIA_SMI_TIMEOUT_S)
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
        product=product, uuid=uuid, total_bytes=int(total) * MIB,
        reserved_bytes=int(reserved) * MIB if reserved.isdigit() else None, used_bytes=int(used) * MIB,
        compute_capability=(int(major), int(minor)), cores=None, asked="nvidia-smi",
    )  # fmt: skip
