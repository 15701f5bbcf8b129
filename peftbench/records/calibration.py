"""The file of a calibration: the constants of one card under one stack, what they were fitted on, and how well they do.

A small JSON file that can be read and compared by eye. It names no machine and no single card, only the product.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from peftbench.base.cache_folder import calibration_place
from peftbench.base.codec import Count, Within, from_json
from peftbench.base.documents import read_json
from peftbench.base.errors import CatalogError, SpecError
from peftbench.base.files import write_whole
from peftbench.base.units import human_bytes, slug
from peftbench.base.visible import written
from peftbench.inputs.card.gpu import CardConstants, Seen
from peftbench.records.environment import read_versioned

if TYPE_CHECKING:
    from peftbench.records.run import RunRecord

SCHEMA_VERSION = 1
STACK = ("torch", "transformers", "bitsandbytes")
"""The libraries whose kernels and allocations the constants describe."""
OFF = "none"
"""Given as a file, plans without one."""
MEMORY = ("context_bytes", "slack_factor")
TIME = ("matmul_share", "layer_launch_s", "adapter_launch_s", "quantized_launch_s", "dequantized_bytes")
"""Fields of estimate.time.TimeConstants that runs may decide."""
_LAUNCH_S = Within(1e-12, 1e6)
RANGES = {
    "context_bytes": Within(1, 1e13), "slack_factor": Within(0, 1e6), "matmul_share": Within(1e-9, 1e6),
    "layer_launch_s": _LAUNCH_S, "adapter_launch_s": _LAUNCH_S, "quantized_launch_s": _LAUNCH_S,
    "dequantized_bytes": Within(1e-6, 1e9),
}  # fmt: skip
"""Of each constant: far beyond any card, near enough for every time to be finite. Only slack may be nothing."""

_WANTED = "Make one: peftbench calibrate results/<card>"


NotNegative = Annotated[float, Within(0, 1e30)]
Rate = Annotated[float, Within(1000, 1e24)]
Factor = Annotated[float, Within(1, 1e6)]
"""How far off, whichever way: 1 when exact."""


@dataclass(frozen=True)
class Constant:
    """One number; where no record decided it, it is the prior, and `records` is 0."""

    value: NotNegative
    low: NotNegative
    high: NotNegative
    unit: str
    records: Count

    @property
    def fitted(self) -> bool:
        """Whether records decided it."""
        return self.records > 0


@dataclass(frozen=True)
class HeldOut:
    """How well constants fitted without a case predicted that case, over all cases. None: nothing to judge by.

    A factor is 1 when exact, and the same for twice and for half.
    """

    cases: Count
    time_median: Factor | None
    time_p90: Factor | None
    """The factor that nine of ten cases were within; None too where fewer than ENOUGH cases were timed."""
    prior_time_median: Factor | None
    """The priors' error on the same cases."""
    device_median: NotNegative | None
    """Error of the device's peak as a fraction."""
    prior_device_median: NotNegative | None


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """All that the file holds."""

    device: str
    """ "cuda" or "cpu"."""
    product: str
    """The card or the CPU, as its driver names it."""
    stack: Mapping[str, str]
    """Minor versions of STACK."""
    driver: str | None
    tensor_flops: Rate | None
    """What efficiency is a share of; None: no time was fitted."""
    memory_bandwidth: Rate | None
    """Bytes per second, which the dequantization factor is relative to."""
    constants: Mapping[str, Constant]
    held_out: HeldOut
    records: tuple[str, ...]
    """Fingerprints of the records it was fitted on, so that it is never judged by them."""
    made_at: str
    """UTC, the day."""

    @property
    def text(self) -> str:
        """What it was fitted on and how good it is, in one sentence."""
        libraries = ", ".join(f"{name} {version}" for name, version in self.stack.items())
        runs = f"{len(self.records)} run{'s' if len(self.records) != 1 else ''}"
        return f"calibrated on {runs} of {self.product}, {libraries}, {self.made_at}; {self.held_out_text}."

    @property
    def held_out_text(self) -> str:
        """The held-out errors in words."""
        held = self.held_out
        times = f"time ×{held.time_median:.2f} at the median" if held.time_median else ""
        memory = f"device peak {held.device_median:.1%} at the median" if held.device_median is not None else ""
        said = ", ".join(filter(None, (times, memory)))
        return f"held out: {said}" if said else "held-out error —: one case alone"

    @property
    def time_constants(self) -> dict[str, float]:
        """Fields of TimeConstants that records decided."""
        return {name: found.value for name, found in self.constants.items() if found.fitted and name in TIME}

    @property
    def card_constants(self) -> CardConstants:
        """What formulas take."""
        return card_constants(self.constants)._replace(time_error=self.held_out.time_p90, said=self.text)


def card_constants(constants: Mapping[str, Constant]) -> CardConstants:
    """What formulas take, without the constants that no record decided."""
    fitted = {name: found for name, found in constants.items() if found.fitted}
    seen = {name: Seen(found.value, found.low, found.high, found.records) for name, found in fitted.items()}
    context, slack = (seen.get(name) for name in MEMORY)
    return CardConstants(context, slack, tuple((name, seen[name].value) for name in seen if name not in MEMORY))


def value_text(name: str, value: float) -> str:
    """A constant for people: bytes with their unit, others with three digits."""
    return human_bytes(round(value)) if name == "context_bytes" else f"{value:.3g}"


def minor(version: str) -> str:
    """ "2.13" of "2.13.0+cpu"."""
    return ".".join(version.split("+")[0].split(".")[:2])


def stack_of(versions: Mapping[str, str]) -> dict[str, str]:
    """The minor versions of the libraries that count; those that are missing are left out."""
    return {name: minor(versions[name]) for name in STACK if name in versions}


def fingerprint(record: RunRecord) -> str:
    """16 hexadecimal digits, equal for the same run and no other, in whatever version its record is read.

    No two runs take the same times, so those and where they were taken are enough.
    """
    found, place = record.measurement, record.environment
    same = [record.suite, record.case.id, place.product, place.started_at, found.duration_s, *found.step_s]
    return hashlib.sha256(json.dumps(same).encode()).hexdigest()[:16]


# ── where it lies ───────────────────────────────────────────────────────────────────────────────────────────────────


def default_path(card: str) -> Path:
    """The file of a card in the folder of calibrations, or the one file that PEFTBENCH_CALIBRATION names.

    Raises CatalogError where there is no such folder.
    """
    if not calibration_place():
        raise CatalogError("there is no home folder to write to.", "Set HOME, or name a file with --output.")
    place = Path(calibration_place())
    return place if place.suffix == ".json" else place / f"{slug(card)}.json"


def write_calibration(calibration: Calibration, path: Path) -> None:
    """Write it, with the folder that it needs. Raises CatalogError where that is not possible."""
    value = {"schema_version": SCHEMA_VERSION, **_readable(asdict(calibration))}
    text = json.dumps(value, indent=2, ensure_ascii=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, f"{text}\n".encode())
    except OSError as error:
        raise CatalogError(f"cannot write {path}: {error.strerror}.", "Name another file with --output.") from None


def _readable(value: Any) -> Any:
    """With six digits, far more than any constant is good to."""
    if isinstance(value, dict):
        return {name: _readable(field) for name, field in value.items()}
    return float(f"{value:.6g}") if isinstance(value, float) else value


def read_calibration(path: str | os.PathLike[str]) -> Calibration:
    """Raises CatalogError for a file that is not one, or is of a newer version."""
    value = read_json(path, _WANTED)
    try:
        return read_versioned(value, SCHEMA_VERSION, "a calibration", _from_json)
    except CatalogError as error:
        raise CatalogError(f"cannot read {path}: {error.what}", error.hint or _WANTED) from None


def _from_json(given: Mapping[str, Any]) -> Calibration:
    """Raises SpecError for what is no calibration, and for a number that no card can have."""
    found: Calibration = from_json(Calibration, given, "calibration")
    for name, constant in found.constants.items():
        if name not in RANGES:
            raise SpecError(f"no constant is called {written(name)}.")
        for field in ("low", "value", "high"):
            from_json(Annotated[float, RANGES[name]], getattr(constant, field), f"calibration.constants.{name}.{field}")
        if not constant.low <= constant.value <= constant.high:
            raise SpecError(f"{name} must have its value between low and high.")
    return found
