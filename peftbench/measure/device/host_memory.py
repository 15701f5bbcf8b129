"""The memory of this machine and of the processes of a run on its CPU: /proc on Linux, psutil where there is none."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from peftbench.base.errors import MeasureError, install_hint
from peftbench.measure.device.sampler import Reading

ROOT = Path("/")
MEMBERS_PERIOD_S = 0.1
"""Looking through every process of the machine takes longer than reading the size of a few."""


class ProcessGroup:
    """The processes of one group, whose resident set is read again and again."""

    def __init__(self, group: int) -> None:
        self._group = group
        self._members: tuple[int, ...] = ()
        self._due_s = time.monotonic()
        self._has_proc = (ROOT / "proc/self/statm").exists()
        self._psutil = None if self._has_proc else _import_psutil()

    def read(self) -> Reading:
        """Resident bytes of all its processes together, None when there is none: for a Sampler.

        A page that two of them share counts twice.
        """
        if time.monotonic() >= self._due_s:
            self._members = tuple(self._list())
            self._due_s = time.monotonic() + MEMBERS_PERIOD_S
        sizes = [size for size in map(self._resident_bytes, self._members) if size is not None]
        return Reading(used_bytes=None, process_bytes=sum(sizes) if sizes else None)

    def _list(self) -> Iterator[int]:
        """Without /proc, the leader and what it started."""
        if self._psutil:
            yield self._group
            with suppress(self._psutil.Error):
                yield from (child.pid for child in self._psutil.Process(self._group).children(recursive=True))
            return
        for name in os.listdir("/proc"):
            with suppress(ValueError, OSError):
                if os.getpgid(int(name)) == self._group:
                    yield int(name)

    def _resident_bytes(self, pid: int) -> int | None:
        """None for a process that is over."""
        if self._psutil:
            try:
                return int(self._psutil.Process(pid).memory_info().rss)
            except self._psutil.Error:
                return None
        try:
            with open(f"/proc/{pid}/statm", "rb") as pages:
                return int(pages.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except OSError:
            return None


def machine_bytes(root: Path = ROOT) -> int:
    """Memory of the machine, or of the control group around this process where that is less."""
    try:
        lines = (root / "proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return int(_import_psutil().virtual_memory().total)
    kibibytes = next(int(line.split()[1]) for line in lines if line.startswith("MemTotal:"))
    return min(kibibytes * 1024, *_group_limits(root))


def _group_limits(root: Path) -> Iterator[int]:
    """The limits of this process's control group and of those around it; a container sees its own as the root.

    Source: the kernel's admin-guide, cgroup-v1/memory and cgroup-v2.
    """
    yield 1 << 62
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, inside = line.split(":", 2)
        if controllers in ("", "memory"):
            top = root / "sys/fs/cgroup" / controllers
            name = "memory.limit_in_bytes" if controllers else "memory.max"
            place = top / inside.strip("/")
            for folder in (place, *place.parents):
                with suppress(OSError, ValueError):  # "max" is no number
                    yield int((folder / name).read_text(encoding="ascii"))
                if folder == top:
                    break


def cpu_product(root: Path = ROOT) -> str:
    """What the CPU calls itself; its architecture where it does not say, as on ARM."""
    names = (value for key, value in cpu_facts(root) if key == "model name")
    return next(names, "") or platform.processor() or platform.machine()


def cpu_facts(root: Path = ROOT) -> list[tuple[str, str]]:
    """The pairs of /proc/cpuinfo, once a core; none where there is no such file."""
    try:
        lines = (root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return [(key.strip(), value.strip()) for key, _, value in (line.partition(":") for line in lines) if value]


def _import_psutil() -> Any:
    try:
        import psutil
    except ImportError:
        raise MeasureError("cannot read the memory of this machine: there is no /proc and no psutil.",
                           install_hint("psutil")) from None  # fmt: skip
    return psutil
