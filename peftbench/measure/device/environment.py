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


def described_by_torch(on_card: bool) -> dict[str, Any]:
    """Fields of Environment that only torch knows, or knows better than the driver, of the device of this process."""
    import torch

    found: dict[str, Any] = {"threads": torch.get_num_threads()}
    if on_card:
        card = torch.cuda.get_device_properties(0)
        found |= {"memory_bytes": card.total_memory, "multiprocessors": card.multi_processor_count,
                  "compute_capability": [card.major, card.minor]}  # fmt: skip
    return found


def environment_of(device: Device, by_torch: Mapping[str, Any]) -> Environment:
    """The device as the driver describes it, and as torch does where a child came so far as to say it."""
    memory_bytes, capability = by_torch.get("memory_bytes", device.memory_bytes), by_torch.get("compute_capability")
    assert memory_bytes is not None  # open_device refuses such a card
    return Environment(
        device=device.kind, product=device.product, uuid=device.uuid, memory_bytes=memory_bytes,
        compute_capability=(int(capability[0]), int(capability[1])) if capability else None,
        multiprocessors=by_torch.get("multiprocessors"), driver=device.driver, threads=by_torch.get("threads", 1),
        platform=f"{platform.system()}-{platform.release()}-{platform.machine()}", versions=versions(),
        alloc_conf=next((os.environ[name] for name in ALLOC_CONF if name in os.environ), ""),
        started_at=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )  # fmt: skip


def versions() -> dict[str, str]:
    """Versions of Python and of every library whose code a run runs; one that is missing is left out."""
    return {"python": platform.python_version(), **installed_versions((*LIBRARIES, "peftbench"))}
