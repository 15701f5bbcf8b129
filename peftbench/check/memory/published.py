"""Published measurements: one JSON object a line, each a run's full recipe and what was measured of it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from peftbench.base.codec import from_json
from peftbench.base.errors import CatalogError, PeftbenchError
from peftbench.inputs.recipe import TrainingSpec

SCHEMA_VERSION = 1

METRICS = ("allocated_max", "reserved_max", "nvml_used")
"""Peak of torch.cuda.memory_allocated(), of memory_reserved(), and of the device as nvidia-smi sees it."""

_WANTED = "Give a .jsonl file of records, or a folder that has some."


@dataclass(frozen=True, kw_only=True)
class PublishedRecord:
    """One measured figure and everything that is known of its run. It holds no prediction."""

    id: str
    repository: str
    path: str
    """The file of the repository that has the figure."""
    commit: str
    model: str
    """A Hub id of the catalogue."""
    training: TrainingSpec
    trainable_parameters: int | None = None
    """As the source counts them; None where it does not say."""
    gpu: str
    metric: str
    measured_bytes: int
    stack: Mapping[str, str]
    """Versions of the libraries: {"torch": "2.4.1"}."""
    notes: str = ""
    batch_lengths: tuple[int, ...] = ()
    """Lengths of batches that came before and with the peak, for a dry run; empty where all were alike."""
    torch_empty_cache_steps: int = 0


def read_records(path: str | os.PathLike[str]) -> tuple[PublishedRecord, ...]:
    """Read one .jsonl file, or every .jsonl file directly in a folder, in the order of their names.

    Raises CatalogError, with file and line, for whatever cannot be read; nothing is skipped.
    """
    place = Path(path)
    if not place.exists():
        raise CatalogError(f"no such file or folder: {place}.", _WANTED)
    files = sorted(place.glob("*.jsonl")) if place.is_dir() else [place]
    records = tuple(record for file in files for record in _read_file(file))
    if not records:
        raise CatalogError(f"{place} holds no records.", _WANTED)
    _check_unique(records, place)
    return records


def record_to_json(record: PublishedRecord) -> dict[str, object]:
    """The object that a line of a file holds."""
    return {
        "schema_version": SCHEMA_VERSION, "id": record.id,
        "source": {"repository": record.repository, "path": record.path, "commit": record.commit},
        "model": record.model, "training": asdict(record.training),
        "trainable_parameters": record.trainable_parameters, "gpu": record.gpu, "metric": record.metric,
        "measured_bytes": record.measured_bytes, "stack": dict(record.stack), "notes": record.notes,
        **({"batch_lengths": list(record.batch_lengths)} if record.batch_lengths else {}),
        **({"torch_empty_cache_steps": record.torch_empty_cache_steps} if record.torch_empty_cache_steps else {}),
    }  # fmt: skip


def record_from_json(value: object) -> PublishedRecord:
    """The inverse of record_to_json; raises CatalogError or SpecError that say what is wrong."""
    if not isinstance(value, dict):
        raise CatalogError("a record is an object.")
    version = value.get("schema_version")
    if version != SCHEMA_VERSION:
        raise CatalogError(f"schema_version is {version!r}; this version reads {SCHEMA_VERSION}.")
    given = {name: field for name, field in value.items() if name not in ("schema_version", "source")}
    record: PublishedRecord = from_json(PublishedRecord, {**given, **(value.get("source") or {})}, "record")
    if not all(type(length) is int and length > 0 for length in record.batch_lengths):
        raise CatalogError(f"batch_lengths are {list(record.batch_lengths)!r}, not lengths.")
    if record.metric not in METRICS:
        raise CatalogError(f"metric is {record.metric!r}, not one of {', '.join(METRICS)}.")
    if record.measured_bytes <= 0:
        raise CatalogError(f"measured_bytes is {record.measured_bytes}, not a size.")
    return record


def _read_file(file: Path) -> Iterator[PublishedRecord]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CatalogError(f"cannot read {file}: {error}.", _WANTED) from None
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield _read_line(line, f"{file}, line {number}")


def _read_line(line: str, where: str) -> PublishedRecord:
    try:
        return record_from_json(json.loads(line))
    except (ValueError, RecursionError):
        raise CatalogError(f"{where}: this is not JSON.", "Restore the line, or delete it.") from None
    except PeftbenchError as error:
        raise CatalogError(f"{where}: {error.what}", error.hint or "Correct the line, or delete it.") from None


def _check_unique(records: tuple[PublishedRecord, ...], place: Path) -> None:
    """Raise CatalogError where two records have one id: a figure would count twice."""
    seen: set[str] = set()
    for record in records:
        if record.id in seen:
            raise CatalogError(f"{place} has two records with the id {record.id!r}.", "Delete one of them.")
        seen.add(record.id)
