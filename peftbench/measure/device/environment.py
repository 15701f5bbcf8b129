"""Where a run takes place: the device, the libraries and the settings that its memory and time depend on."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from peftbench.libraries.versions import LIBRARIES, installed_versions
from peftbench.measure.device.open import Device
from peftbench.records.environment import Environment

ALLOC_CONF = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")


def environment_of(device: Device, told: Mapping[str, Any]) -> Environment:
    """The device as the driver describes it, and `told`, which torch says of it, in its place where it is known."""
    return Environment(
        device=device.kind,
        product=device.product,
        uuid=device.uuid,
        memory_bytes=told.get("memory_bytes", device.memory_bytes),
        compute_capability=_pair(told.get("compute_capability")),
        multiprocessors=told.get("multiprocessors"),
        driver=device.driver,
        threads=told.get("threads", 1),
        platform=f"{platform.system()}-{platform.release()}-{platform.machine()}",
        versions=versions(),
        alloc_conf=next((os.environ[name] for name in ALLOC_CONF if name in os.environ), ""),
        started_at=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )


def versions() -> dict[str, str]:
    """Versions of Python and of every library whose code a run runs; one that is missing is left out."""
    return {"python": platform.python_version(), **installed_versions((*LIBRARIES, "peftbench"))}


def _pair(capability: Any) -> tuple[int, int] | None:
    return None if capability is None else (int(capability[0]), int(capability[1]))
