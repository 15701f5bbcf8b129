"""What this machine can measure and run, what is missing for the rest, and the command that mends it."""

from __future__ import annotations

import os
import platform
import re
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import metadata, util
from pathlib import Path
from typing import Literal

from peftbench.base.errors import MeasureError, install_hint
from peftbench.base.units import human_bytes
from peftbench.libraries.versions import installed_versions
from peftbench.libraries.worker import WSL
from peftbench.measure.device.host_memory import ProcessGroup, cpu_facts, cpu_product, machine_bytes
from peftbench.measure.device.nvml import UNSHADOW, Card, is_shadowed, list_cards, open_card
from peftbench.measure.device.sampler import PERIOD_S, Sampler

Status = Literal["ok", "limited", "missing"]
JITTER_S = 0.5
EVEN = 1.5
"""A reading is late when it comes that many periods after the one before."""
COLUMNS = {"power_w": "power", "utilization": "utilization", "temperature_c": "temperature", "clock_mhz": "clock"}

_BUILDS = {"cuda": "CUDA", "hip": "ROCm", "xpu": "XPU"}
_BUILD = re.compile(r"^(cuda|hip|xpu)\b[^=\n]*=\s*'([^']+)'", re.MULTILINE)
"""Lines of torch/version.py, as in: cuda: Optional[str] = '12.8'."""
_EXTRAS = ("bench", "report", "")
"""Those of peftbench whose libraries are looked at; "" is what every installation has."""
_REQUIREMENT = re.compile(r"([\w.-]+)[^;]*>=([\d.]+)[^;]*(?:;.*extra == ['\"](\w+))?")
"""As in: transformers<6,>=5.0; extra == 'bench'."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    status: Status
    detail: str
    remedy: str = ""
    """The command or the setting that mends it."""


def diagnose() -> tuple[Finding, ...]:
    """Look at Python, the libraries, the cards and the machine; imports none of the large libraries.

    It takes half a second longer than that: so long the sampler runs.
    """
    python = Finding("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    libraries = (*_libraries(), *_torch_build())
    return (python, _system(), *libraries, *_cards(), *_host(), _dry_runs(), *_nf4(cpu_facts()), _sampler())


# libraries ───────────────────────────────────────────────────────────────────


def _system() -> Finding:
    if sys.platform == "linux":
        return Finding("system", "ok", f"{platform.system()}: plans, dry runs and runs")
    if sys.platform == "win32":
        return Finding("system", "limited", "Windows: plans only; dry runs and runs need Linux", WSL)
    return Finding("system", "limited", f"{platform.system()}: plans; dry runs and runs of a CPU only", "Use Linux.")


def _libraries() -> Iterator[Finding]:
    """Each that the installed peftbench requires, and an unofficial one in the place of another."""
    try:
        required = metadata.requires("peftbench") or []
    except metadata.PackageNotFoundError:
        detail = "it runs without being installed: which libraries it needs is not known"
        yield Finding("peftbench", "limited", detail, install_hint(extra="bench"))
        return
    parts = [match.groups(default="") for match in map(_REQUIREMENT.match, required) if match]
    for extra in _EXTRAS:
        yield from (_library(name, oldest, extra) for name, oldest, its_extra in parts if its_extra == extra)
    if is_shadowed():
        yield Finding("pynvml", "limited", "the unofficial distribution stands in the way of nvidia-ml-py", UNSHADOW)


def _library(name: str, oldest: str, extra: str) -> Finding:
    version = installed_versions((name,)).get(name)
    if version is None:
        return Finding(name, "missing", "not installed", install_hint(extra=extra) if extra else install_hint(name))
    if _numbers(version) < _numbers(oldest):
        remedy = install_hint(f"--upgrade '{name}>={oldest}'")
        return Finding(name, "limited", f"{version} is older than {oldest}", remedy)
    return Finding(name, "ok", version)


def _numbers(version: str) -> tuple[int, ...]:
    """(2, 13, 0) for "2.13.0+cpu"; what follows the numbers, as rc1, does not count."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()


def _torch_build() -> Iterator[Finding]:
    """What torch was built for: a wheel of PyPI does not say so in its version, its version.py does."""
    found = util.find_spec("torch")
    if not found or not found.origin:
        return
    try:
        builds = dict(_BUILD.findall(Path(found.origin).with_name("version.py").read_text(encoding="utf-8")))
    except OSError:
        builds = {}
    if "cuda" in builds:
        yield Finding("torch build", "ok", f"for CUDA {builds['cuda']}")
    elif builds:
        kind, version = next(iter(builds.items()))
        yield Finding("torch build", "limited", f"for {_BUILDS[kind]} {version}; only CUDA cards are measured here")
    else:
        remedy = f"with an NVIDIA card, {install_hint('--force-reinstall torch')}"
        yield Finding("torch build", "limited", "for the CPU: runs on a card need a build for CUDA", remedy)


# cards ───────────────────────────────────────────────────────────────────────


def _cards() -> Iterator[Finding]:
    """The driver, and of every card that CUDA shows its memory and what can be read of it."""
    try:
        uuids = list_cards()
    except MeasureError as error:
        yield Finding("NVIDIA card", "missing", _clean(error.what), error.hint)
        return
    for number, uuid in enumerate(uuids):
        try:
            with open_card(uuid) as card:
                if not number:
                    yield Finding("NVIDIA driver", "ok", card.driver)
                yield from _card(card, f"card {number}")
        except MeasureError as error:
            yield Finding(f"card {number}", "limited", _clean(error.what), error.hint)


def _card(card: Card, name: str) -> Iterator[Finding]:
    reading = card.read(_own_group())
    if card.memory_bytes is None or reading.used_bytes is None:
        yield Finding(name, "limited", f"{card.product}: the driver does not report its memory")
    else:
        free = human_bytes(card.memory_bytes - reading.used_bytes)
        yield Finding(name, "ok", f"{card.product}, {free} free of {human_bytes(card.memory_bytes)}, {card.uuid}")
    read = {**{label: getattr(reading, column) for column, label in COLUMNS.items()}, "energy": card.energy_j()}
    yield _sampled(f"{name} sampling", [label for label, value in read.items() if value is None], card)
    yield _processes(f"{name} processes", card)


def _sampled(name: str, lacking: list[str], card: Card) -> Finding:
    everything = [*COLUMNS.values(), "energy"]
    read = ", ".join(["memory", *(label for label in everything if label not in lacking)])
    if not lacking:
        return Finding(name, "ok", read)
    why = ", ".join(sorted(set(card.refused.values()))) or "no answer"
    return Finding(name, "limited", f"{read}; not {', '.join(lacking)} ({why})")


def _processes(name: str, card: Card) -> Finding:
    """Whether the driver reports a process's share shows only where one is on the card."""
    others = card.others()
    if any("RunningProcesses" in function for function in card.refused):
        return Finding(name, "limited", "the driver does not list them: memory is that of the whole card")
    if any(holder.used_bytes is None for holder in others):
        detail = f"{len(others)} hold memory, the driver does not say how much: memory is that of the whole card"
        return Finding(name, "limited", detail)
    held = sum(holder.used_bytes or 0 for holder in others)
    listed = f"{len(others)} hold {human_bytes(held)}" if others else "none is listed; in a container others may be"
    return Finding(name, "ok", listed)


# this machine ────────────────────────────────────────────────────────────────


def _host() -> Iterator[Finding]:
    yield Finding("CPU", "ok", f"{cpu_product()}, {os.cpu_count()} cores")
    try:
        yield Finding("memory", "ok", f"{human_bytes(machine_bytes())} for processes here")
    except MeasureError as error:
        yield Finding("memory", "missing", _clean(error.what), error.hint)


def _dry_runs() -> Finding:
    """The layout of torch's tables that a dry run's CUDA without a card relies on is known on Linux only."""
    if not installed_versions(("torch",)):
        return Finding("dry runs", "missing", "they run torch's own code", install_hint(extra="bench"))
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"):
        detail = "CUDA without a card works on Linux, x86-64 and aarch64, only"
        return Finding("dry runs", "limited", detail, "plan --dry-run --dry-run-device cpu")
    return Finding("dry runs", "ok", "can run as on a card, with or without one")


def _nf4(facts: Iterable[tuple[str, str]]) -> Iterator[Finding]:
    if any("avx512_bf16" in value.split() for key, value in facts if key == "flags"):
        detail = "bitsandbytes would repack NF4 on this CPU (AVX512-BF16); runs here switch that off"
        yield Finding("NF4 on the CPU", "limited", detail)


def _sampler() -> Finding:
    """How evenly this machine lets a thread read every 10 ms: the card if there is one, else this process."""
    try:
        with open_card() as card:
            return _evenness(Sampler(partial(card.read, _own_group())), "of the card")
    except MeasureError:
        pass
    try:
        return _evenness(Sampler(ProcessGroup(_own_group()).read), "of this process")
    except MeasureError as error:
        return Finding("sampler", "missing", _clean(error.what), error.hint)


def _evenness(sampler: Sampler, of_what: str) -> Finding:
    with sampler:
        time.sleep(JITTER_S)
    jitter = sampler.jitter
    if jitter is None or sampler.lost:
        return Finding("sampler", "limited", sampler.lost or f"one reading {of_what} in {JITTER_S:g} s")
    p50, p95, longest = (1000 * gap for gap in (jitter.p50_s, jitter.p95_s, jitter.longest_s))
    detail = f"reads {of_what} every {p50:.1f} ms; p95 {p95:.1f} ms, longest gap {longest:.1f} ms"
    if jitter.p95_s > EVEN * PERIOD_S:
        return Finding("sampler", "limited", f"{detail}: short peaks may be missed", "leave a core free while it runs")
    return Finding("sampler", "ok", detail)


def _own_group() -> int:
    """The process group of this process; its own number on Windows, which has none."""
    return os.getpgrp() if hasattr(os, "getpgrp") else os.getpid()


def _clean(what: str) -> str:
    return what.removesuffix(".")
