"""Published training speeds: a CSV of runs, each with its recipe in the words of `plan` and the seconds of a step."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

from peftbench.base.errors import CatalogError, located
from peftbench.catalog.gpus import find_gpu
from peftbench.catalog.models import find_model
from peftbench.decide.from_options import training_recipes
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.inputs.model.config_json import read_config
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.recipe import ParallelismSpec, TrainingSpec

MODELS_FILE = "throughput_models.json"
"""Beside the CSV: config.json of models that the catalogue lacks."""
COUNTS = ("sequence_length", "micro_batch_size", "gradient_accumulation_steps")
TEXTS = ("optimizer", "loss", "quant_type", "target_modules")
COLUMNS = (
    "id", "source", "citation", "gpu", "gpus", "nodes", "strategy", "cpu_offload", "framework", "model", "method", "r",
    "gradient_checkpointing", "step_s", "notes", *COUNTS, *TEXTS,
)  # fmt: skip
OPTIONAL = ("r", "num_virtual_tokens")
"""Numbers of an adapter, empty for those that lack them; the second may be missing as a column."""


class SpeedRecord(NamedTuple):
    """One published step. It holds no prediction."""

    id: str
    source: str
    """Who measured it: rows of one source are one piece of evidence."""
    citation: str
    model: ModelSpec
    training: TrainingSpec
    gpu: GpuSpec
    framework: str
    step_s: float
    notes: str


def read_speeds(path: str) -> tuple[SpeedRecord, ...]:
    """Every row of the file; raises CatalogError, with the line, for one that cannot be read."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            if missing := set(COLUMNS) - set(reader.fieldnames or ()):
                raise CatalogError(f"{path} has no column {min(missing)!r}.", "Give a CSV like throughput.csv.")
            return tuple(_numbered(reader, Path(path)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CatalogError(f"cannot read {path}: {error}.", "Give a CSV like throughput.csv.") from None


def _numbered(rows: csv.DictReader[str], path: Path) -> Iterator[SpeedRecord]:
    for row in rows:
        with located(f"{path}, line {rows.line_num}", CatalogError):
            try:
                record = _record(row, path.parent / MODELS_FILE)
            except (ValueError, TypeError, AttributeError):
                raise CatalogError("a number is missing.", "Correct the line.") from None
        yield record


def _record(row: Mapping[str, str], models: Path) -> SpeedRecord:
    step_s = float(row["step_s"])
    if not 0 < step_s < float("inf"):
        raise CatalogError(f"step_s is {row['step_s']}, not a time.", "Correct the line.")
    name, own = row["model"], _configs(models)
    model = read_config(own[name], name, str(models)) if name in own else find_model(name)
    return SpeedRecord(
        row["id"], row["source"], row["citation"], model, _training(row), find_gpu(row["gpu"]), row["framework"],
        step_s, row["notes"],
    )  # fmt: skip


def _training(row: Mapping[str, str]) -> TrainingSpec:
    options: dict[str, object] = {name: int(row[name]) for name in COUNTS}
    options |= {name: row[name] for name in TEXTS if row[name]}
    options["gradient_checkpointing"] = row["gradient_checkpointing"] == "yes"
    options |= {name: int(row[name]) for name in OPTIONAL if row.get(name)}
    (recipe,) = training_recipes((row["method"],), options)
    parallel = ParallelismSpec(
        gpus=int(row["gpus"]), nodes=int(row["nodes"]), strategy=row["strategy"], cpu_offload=row["cpu_offload"] != ""
    )
    return replace(recipe, parallelism=parallel)


@cache
def _configs(models: Path) -> Mapping[str, Mapping[str, object]]:
    if not models.exists():
        return {}
    with models.open(encoding="utf-8") as file:
        found: dict[str, Mapping[str, object]] = json.load(file)
    return found
