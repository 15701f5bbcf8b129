"""Published training speeds: a CSV of runs, each with its recipe in the words of `plan` and the seconds of a step."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import replace
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NamedTuple

from peftbench.base.codec import from_json
from peftbench.base.documents import read_json
from peftbench.base.errors import CatalogError, PeftbenchError
from peftbench.base.files import open_regular
from peftbench.catalog.gpus import find_gpu
from peftbench.catalog.models import find_model
from peftbench.decide.from_options import training_recipes
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.inputs.model.config_json import read_config
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.recipe import ParallelismSpec, TrainingSpec
from peftbench.records.environment import Took
from peftbench.records.lines import LeftOut, Tell

Configs = Mapping[str, Mapping[str, Any]]
MODELS_FILE = "throughput_models.json"
"""Beside the CSV: config.json of models that the catalogue lacks."""
COUNTS = ("sequence_length", "micro_batch_size", "gradient_accumulation_steps")
TEXTS = ("optimizer", "loss", "quant_type", "target_modules")
WORDS = ("dtype", "attention", "fused_kernels", "adapter_dtype", "compute_dtype")
"""Texts that may be missing as columns."""
SWITCHES = ("gradient_checkpointing", "autocast", "padded", "use_reentrant", "double_quant", "upcast_unquantized")
"""yes or no; empty, or missing as a column: as by default."""
COLUMNS = (
    "id", "source", "citation", "gpu", "gpus", "nodes", "strategy", "cpu_offload", "framework", "model", "method", "r",
    "gradient_checkpointing", "step_s", "notes", *COUNTS, *TEXTS,
)  # fmt: skip
OPTIONAL = ("r", "num_virtual_tokens")
"""Numbers of an adapter, empty for those that lack them; the second may be missing as a column."""

_WANTED = "Give a CSV like throughput.csv."


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
    first_flash: bool
    """The first FlashAttention or its Triton form ran, which later kernels are about twice as fast as."""
    step_s: float
    notes: str


def read_speeds(path: str, tell: Tell) -> tuple[SpeedRecord, ...]:
    """Every row of the file; one that cannot be read is left out with a note that names its line.

    Raises CatalogError for a file that is no such CSV.
    """
    own, left_out = _configs(Path(path).with_name(MODELS_FILE)), LeftOut(tell)
    try:
        with TextIOWrapper(open_regular(path, _WANTED), encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if missing := set(COLUMNS) - set(reader.fieldnames or ()):
                raise CatalogError(f"{path} has no column {min(missing)!r}.", _WANTED)
            found = [_read_row(row, own, f"{path}, line {reader.line_num}", left_out) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CatalogError(f"cannot read {path}: {error}.", _WANTED) from None
    left_out.end()
    return tuple(record for record in found if record)


def _read_row(row: Mapping[str, str], own: Configs, where: str, left_out: LeftOut) -> SpeedRecord | None:
    try:
        return _record(row, own)
    except PeftbenchError as error:
        left_out.tell(f"{where}: left out, {error.what}")
    except (ValueError, TypeError, AttributeError):
        left_out.tell(f"{where}: left out, a number is missing.")
    return None


def _record(row: Mapping[str, str], own: Configs) -> SpeedRecord:
    step_s: float = from_json(Took, float(row["step_s"]), "step_s")
    name = row["model"]
    model = read_config(own[name], name, MODELS_FILE) if name in own else find_model(name)
    return SpeedRecord(
        row["id"], row["source"], row["citation"], model, _training(row), find_gpu(row["gpu"]), row["framework"],
        row.get("flash_attention") == "1", step_s, row["notes"],
    )  # fmt: skip


def _training(row: Mapping[str, str]) -> TrainingSpec:
    options: dict[str, object] = {name: int(row[name]) for name in COUNTS}
    options |= {name: row[name] for name in TEXTS if row[name]}
    options |= {name: row[name] for name in WORDS if row.get(name)}
    options |= {name: row[name] == "yes" for name in SWITCHES if row.get(name)}
    options |= {name: int(row[name]) for name in OPTIONAL if row.get(name)}
    (recipe,) = training_recipes((row["method"],), options)
    parallel = ParallelismSpec(
        gpus=int(row["gpus"]), nodes=int(row["nodes"]), strategy=row["strategy"], cpu_offload=row["cpu_offload"] != "",
        link=row.get("link") or None,
    )  # fmt: skip
    return replace(recipe, parallelism=parallel)


def _configs(models: Path) -> Configs:
    found: Configs = read_json(models, _WANTED, Configs) if models.exists() else {}
    return found
