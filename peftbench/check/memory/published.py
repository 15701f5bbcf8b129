"""Published measurements: one JSON object a line, each a run's full recipe and what was measured of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from peftbench.base.codec import Count, Within, from_json
from peftbench.base.errors import CatalogError
from peftbench.base.visible import written
from peftbench.inputs.case import object_with
from peftbench.inputs.recipe import TrainingSpec
from peftbench.inputs.recipe.option import MOST
from peftbench.records.environment import read_versioned

SCHEMA_VERSION = 1


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
    trainable_parameters: Count | None = None
    """As the source counts them; None where it does not say."""
    gpu: str
    metric: Literal["allocated_max", "reserved_max", "nvml_used"]
    """Peak of torch.cuda.memory_allocated(), of memory_reserved(), and of the device as nvidia-smi sees it."""
    measured_bytes: Annotated[int, Within(1)]
    stack: Mapping[str, str]
    """Versions of the libraries: {"torch": "2.4.1"}."""
    notes: str = ""
    batch_lengths: tuple[Annotated[int, Within(1, MOST)], ...] = ()
    """Lengths of batches that came before and with the peak, for a dry run; empty where all were alike."""
    torch_empty_cache_steps: Count = 0


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
    """The inverse of record_to_json; raises CatalogError that says what is wrong."""
    return read_versioned(value, SCHEMA_VERSION, "a published record", _record)


def _record(value: Mapping[str, Any]) -> PublishedRecord:
    given = object_with(("source",), value, "record")
    source = object_with(("repository", "path", "commit"), given.pop("source"), "source")
    record: PublishedRecord = from_json(PublishedRecord, {**source, **given}, "record")
    return record


def published_reader() -> Callable[[object], PublishedRecord]:
    """record_from_json for the lines of one answer: an id that came before is refused, or its figure counted twice."""
    seen: set[str] = set()

    def read(value: object) -> PublishedRecord:
        record = record_from_json(value)
        if record.id in seen:
            raise CatalogError(f"the id {written(record.id)} came before.")
        seen.add(record.id)
        return record

    return read
