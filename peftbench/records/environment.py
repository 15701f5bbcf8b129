"""Where a case ran and how it ended: what every kind of record has."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, TypeVar

from peftbench.base.codec import Count, Within
from peftbench.base.errors import CatalogError, PeftbenchError, SpecError
from peftbench.base.visible import written
from peftbench.inputs.case import DeviceType

Record = TypeVar("Record")
SHORTEST_S = 1e-9
Took = Annotated[float, Within(SHORTEST_S, 1e10)]
"""Seconds that something took: positive, so that ratios of them are finite."""
Moment = Annotated[float, Within(-1e10, 1e10)]
"""Seconds since something began, or until it did."""


class Outcome(str, Enum):
    """How a case ended; each is a result."""

    OK = "ok"
    OOM = "out of memory"
    TIMEOUT = "timed out"
    KILLED = "killed"
    """A signal that was not ours ended it: SIGSEGV, or the kernel's SIGKILL when memory is short."""
    ERROR = "error"

    __str__ = str.__str__


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the allocator, of torch or of Python, had no more."""
    text = str(error)
    named = type(error).__name__ in ("OutOfMemoryError", "MemoryError")
    return named or "DefaultCPUAllocator" in text or "out of memory" in text.lower() or "bad_alloc" in text


@dataclass(frozen=True, kw_only=True)
class Environment:
    """Where a case ran. Two that are equal but for `started_at` should give the same memory."""

    device: DeviceType
    product: str
    """Name of the card, or of the CPU."""
    uuid: str | None
    """The card's; None for a CPU."""
    memory_bytes: Annotated[int, Within(1)]
    """torch.cuda.get_device_properties().total_memory, or the memory of the machine."""
    compute_capability: tuple[Count, Count] | None
    multiprocessors: Annotated[int, Within(1)] | None
    driver: str | None
    threads: Count
    """torch.get_num_threads()."""
    platform: str
    """ "Linux-6.1-x86_64"; no name of the machine."""
    versions: Mapping[str, str]
    """Versions of python, torch, transformers, peft, bitsandbytes, accelerate and peftbench."""
    alloc_conf: str
    """PYTORCH_ALLOC_CONF (or PYTORCH_CUDA_ALLOC_CONF) as it was set."""
    started_at: str
    """UTC, ISO 8601, to the second: "2026-11-01T12:00:00Z"."""

    def __post_init__(self) -> None:
        try:
            time.strptime(self.started_at, "%Y-%m-%dT%H:%M:%SZ")
        except ValueError:
            raise SpecError(f"started_at must be a moment in UTC, not {written(self.started_at)}.") from None


def read_versioned(value: object, newest: int, what: str, read: Callable[[Mapping[str, Any]], Record]) -> Record:
    """What `read` makes of the object without its schema_version; raises CatalogError that says what is wrong with it,
    whatever it is. `what` names it in messages: "a record of a run"."""
    if not isinstance(value, dict):
        raise CatalogError(f"{what} must be an object.")
    version = value.get("schema_version")
    if version is None:
        raise CatalogError("it has no schema_version.")
    if type(version) is not int or version < 1:
        raise CatalogError(f"schema_version is {written(version)}, not a number.")
    if version > newest:
        problem = f"schema_version is {written(version)}; this version of peftbench reads up to {newest}."
        raise CatalogError(problem, "Upgrade peftbench to the version that wrote it.")
    try:
        return read({name: field for name, field in value.items() if name != "schema_version"})
    except PeftbenchError as error:
        raise CatalogError(f"not {what}: {error.what}", error.hint) from None
