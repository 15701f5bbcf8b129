"""Bytes, counts and names to text, and bytes back; the only file that knows what a GiB is."""

from __future__ import annotations

import math
import re

from peftbench.base.errors import SpecError

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
SHORTEST_S, LONGEST_S = 0.001, 604_800
"""What a time limit may be: a millisecond to a week."""

_UNITS = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
          "kib": KIB, "mib": MIB, "gib": GIB, "tib": 1 << 40}  # fmt: skip
_SIZE = r"\s*([0-9]*\.?[0-9]+)\s*([a-z]+)\s*"


def gib(size_bytes: int) -> str:
    """Write bytes as GiB with two decimals and no unit, for tables whose heading names the unit."""
    return f"{size_bytes / GIB:.2f}"


def human_bytes(size_bytes: int) -> str:
    """Write bytes with the binary unit that keeps the number readable: "512 B", "1.50 MiB", "14.56 GiB"."""
    for unit, size in (("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if abs(size_bytes) >= size - 0.005 * (size // KIB):  # the unit below would be rounded to 1024.00
            return f"{size_bytes / size:.2f} {unit}"
    return f"{size_bytes} B"


def human_count(number: int) -> str:
    """Write a parameter count: "8.03 B", "41.9 M", "131,072"."""
    if number >= 10**9 - 50_000:  # else it would be rounded to 1000.0 M
        return f"{number / 1e9:.2f} B"
    if number >= 10**6:
        return f"{number / 1e6:.1f} M"
    return f"{number:,}"


def slug(name: str) -> str:
    """Write the name of a device as part of a path: "nvidia-a100-sxm4-80gb"."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def parse_bytes(text: str) -> int:
    """Read "14.5GiB", "16 GB" or "15360MiB" as bytes; a unit is required, because GB and GiB differ by 7 %.

    Raises SpecError for anything else, including zero and sizes beyond 1 PiB.
    """
    match = re.fullmatch(_SIZE, text, re.IGNORECASE)
    unit = _UNITS.get(match[2].lower()) if match else None
    size = float(match[1]) * unit if match and unit else math.nan
    if not 1 <= size <= 1 << 50:
        what = f"cannot read {text[:40]!r} as a memory size."
        raise SpecError(what, "Write a number and a unit, as in 14.5GiB or 16GB.")
    return int(size)
