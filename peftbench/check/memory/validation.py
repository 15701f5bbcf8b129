"""Lay predictions beside measurements, published ones and our own: the error of each figure, and of groups of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import mean, median

from peftbench.base.errors import CatalogError, SpecError
from peftbench.base.visible import written
from peftbench.catalog.gpus import find_gpu
from peftbench.catalog.models import find_model
from peftbench.check.groups import grouped, nine_of_ten
from peftbench.check.memory.published import PublishedRecord
from peftbench.estimate.replay.step import Batches
from peftbench.estimate.training import estimate_training
from peftbench.memory import MemoryProfile, Part
from peftbench.records.lines import LeftOut, Tell

PREDICTED: dict[str, Callable[[MemoryProfile], int]] = {
    "allocated_max": lambda profile: profile.allocated_bytes,
    "reserved_max": lambda profile: profile.reserved_bytes,
    "nvml_used": lambda profile: profile.device_bytes,
}
"""Like with like: the three sizes of a profile are never compared with each other's measurements."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure of a run."""

    id: str
    """The name of the run: the same for each of its figures."""
    method: str
    model: str
    gpu: str
    """The device it ran on."""
    source: str
    """Who measured it, or which suite it is of."""
    metric: str
    """One of PREDICTED."""
    measured_bytes: int
    origin: Mapping[str, str]
    """Where the figure stands."""


GROUPS: dict[str, Callable[[Figure], str]] = {
    "method": lambda figure: figure.method,
    "model": lambda figure: figure.model,
    "source": lambda figure: figure.source,
    "device": lambda figure: figure.gpu,
}


@dataclass(frozen=True, slots=True)
class ValidatedRow:
    """One measured figure, what is predicted for its run, and the band around that."""

    record: Figure
    predicted_bytes: int
    low_bytes: int
    high_bytes: int
    """The band of the device peak, less the context where the figure is without one."""
    peak_phase: str

    @property
    def error(self) -> float:
        """Relative to the measurement; positive when too much is predicted."""
        return self.predicted_bytes / self.record.measured_bytes - 1

    @property
    def in_band(self) -> bool:
        """Whether the measured figure lies in the predicted band."""
        return self.low_bytes <= self.record.measured_bytes <= self.high_bytes


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Errors of the rows of one group and metric, as fractions."""

    group: str
    metric: str
    rows: int
    median_error: float
    """Over the absolute values, as the next two."""
    p90_error: float
    worst_error: float
    bias: float
    """The mean with its sign."""
    in_band: float | None
    """Share of rows within the band; None for allocated figures, whose band is not stated."""


@dataclass(frozen=True, slots=True)
class ValidationReport:
    """Every row, in the order of the records."""

    rows: tuple[ValidatedRow, ...]

    def of_metric(self, metric: str) -> tuple[ValidatedRow, ...]:
        """The rows of one metric."""
        return tuple(row for row in self.rows if row.record.metric == metric)

    def accuracies(self, by: str) -> tuple[Accuracy, ...]:
        """One line for each metric and group of GROUPS, and one for each metric as a whole."""
        found = []
        for metric in PREDICTED:
            rows = self.of_metric(metric)
            groups = grouped(rows, lambda row: GROUPS[by](row.record))
            found += [accuracy_of(name, metric, group) for name, group in groups.items()]
            if rows:
                found.append(accuracy_of("all", metric, rows))
        return tuple(found)

    @property
    def worst_allocated_error(self) -> float:
        """The largest absolute error of an allocated figure; 0 where there is none."""
        return max((abs(row.error) for row in self.of_metric("allocated_max")), default=0.0)


Predictor = Callable[[PublishedRecord], MemoryProfile]


def by_formula(record: PublishedRecord) -> MemoryProfile:
    """The estimate of the record's run."""
    batches = Batches(record.batch_lengths, record.torch_empty_cache_steps)
    return estimate_training(find_model(record.model), record.training, find_gpu(record.gpu), batches)


def validate(records: Iterable[PublishedRecord], tell: Tell, predict: Predictor = by_formula) -> ValidationReport:
    """Predict every run afresh; a record that names what cannot be predicted is left out with a note."""
    rows, left_out = [], LeftOut(tell)
    for record in records:
        try:
            rows.append(row_of(figure_of(record), predict(record)))
        except (CatalogError, SpecError) as error:
            left_out.tell(f"record {written(record.id)}: left out, {error.what}")
    left_out.end()
    return ValidationReport(tuple(rows))


def accuracy_of(group: str, metric: str, rows: Iterable[ValidatedRow]) -> Accuracy:
    """Summarize at least one row."""
    rows = list(rows)
    errors = [abs(row.error) for row in rows]
    return Accuracy(
        group=group, metric=metric, rows=len(rows), bias=mean(row.error for row in rows),
        median_error=median(errors), p90_error=nine_of_ten(errors), worst_error=max(errors),
        in_band=None if metric == "allocated_max" else mean(row.in_band for row in rows),
    )  # fmt: skip


def figure_of(record: PublishedRecord) -> Figure:
    """The published figure, without its run's recipe."""
    return Figure(
        id=record.id, method=record.training.method, model=record.model, gpu=record.gpu, source=record.repository,
        metric=record.metric, measured_bytes=record.measured_bytes,
        origin={"repository": record.repository, "path": record.path, "commit": record.commit},
    )  # fmt: skip


def row_of(figure: Figure, profile: MemoryProfile) -> ValidatedRow:
    """The figure beside the profile that was predicted for its run."""
    whole = figure.metric == "nvml_used"  # reserved and allocated figures are without the context
    contexts = [] if whole else [c for c in profile.peak if c.part is Part.CONTEXT]
    return ValidatedRow(
        record=figure,
        predicted_bytes=PREDICTED[figure.metric](profile),
        low_bytes=profile.device_low_bytes - sum(c.low_bytes for c in contexts),
        high_bytes=min(
            profile.needed_high_bytes - sum(c.high_bytes for c in contexts),
            profile.device_high_bytes - sum(c.low_bytes for c in contexts),  # on a full card
        ),
        peak_phase=profile.peak_phase.value,
    )
