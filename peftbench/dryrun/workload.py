"""What a dry run runs: a model's config.json, a recipe, and the kind of card it is meant for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from peftbench.base.codec import Count, Within, check_fields, from_json
from peftbench.base.errors import SpecError
from peftbench.estimate.parts.card import A100_MULTIPROCESSORS, AMPERE
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.inputs.case import recipe_from_json
from peftbench.inputs.recipe import InferenceSpec, TrainingSpec
from peftbench.inputs.recipe.option import MOST
from peftbench.inputs.task import AUTO, TaskSpec

DEPTH_KEYS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
"""What configs call the number of their layers."""
STEPS = 2
"""Optimizer states exist from the second step on; a third adds nothing."""
MAX_GPUS = 1024
"""FSDP makes an object for each GPU's part of each tensor."""
_BY_FORMULA_ALONE = {"zero1": "DeepSpeed", "zero2": "DeepSpeed", "zero3": "DeepSpeed", "tensor": "tensor parallelism"}
"""Strategies whose code is not run on fake tensors, in words."""
_BY_FORMULA = "Leave out --dry-run: the estimate knows it."


Positive = Annotated[int, Within(1, MOST)]


def check_group(recipe: TrainingSpec | InferenceSpec, device: str) -> None:
    """Raise SpecError where GPUs share the model in a way that has no dry run."""
    parallelism = recipe.parallelism
    if parallelism.strategy in _BY_FORMULA_ALONE:
        raise SpecError(f"{_BY_FORMULA_ALONE[parallelism.strategy]} has no dry run.", _BY_FORMULA)
    if isinstance(recipe, TrainingSpec) and parallelism.shards_weights and recipe.transformers != "5":
        what = "FSDP1, the one of transformers 4, has no dry run."
        raise SpecError(what, "Leave out --transformers for FSDP2, or --dry-run for the estimate.")
    if parallelism.gpus > MAX_GPUS:
        raise SpecError(f"a dry run is of at most {MAX_GPUS:,} GPUs, not of {parallelism.gpus:,}.", _BY_FORMULA)
    if parallelism.strategy != "none" and device != "cuda":
        what = f"several GPUs are dry-run as CUDA devices, not as {device}."
        raise SpecError(what, "Leave out --dry-run-device, or --dry-run for the estimate.")


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One dry run. Two that are equal have the same trace, so this is also the key of the cache."""

    config: str
    """The config.json of the model, as text with sorted keys."""
    recipe: TrainingSpec | InferenceSpec
    adapter_config: str = ""
    """The adapter_config.json that PEFT wrote, as text; empty: the adapter of the recipe."""
    compute_capability: tuple[Count, Count] = AMPERE
    multiprocessors: Positive = A100_MULTIPROCESSORS
    batch_lengths: tuple[Positive, ...] = ()
    """Tokens of the sequences of each step in turn; empty: the recipe's own length, twice."""
    empty_cache_steps: Annotated[int, Within(0, MOST)] = 0
    """torch_empty_cache_steps: call torch.cuda.empty_cache() after every so many steps; 0: never."""
    task_spec: TaskSpec = AUTO
    layers: Positive | None = None
    """Decoder layers to keep; None: all."""
    device: Literal["cuda", "cpu", "host"] = "cuda"
    """"cuda"; "cpu", which stands for a card where fake CUDA does not hold; or "host", a run on a CPU as it is."""

    def __post_init__(self) -> None:
        check_fields(self)
        check_group(self.recipe, self.device)

    @property
    def device_type(self) -> str:
        """What torch calls the device of its tensors."""
        return "cpu" if self.device == "host" else self.device

    @property
    def padded(self) -> bool:
        """Whether attention gets a mask."""
        return isinstance(self.recipe, TrainingSpec) and self.recipe.padded

    @property
    def lengths(self) -> tuple[int, ...]:
        """The sequence length of every step."""
        if self.batch_lengths or isinstance(self.recipe, InferenceSpec):
            return self.batch_lengths
        return (self.recipe.sequence_length,) * STEPS


def workload_of(
    config: Mapping[str, object], recipe: TrainingSpec | InferenceSpec, gpu: GpuSpec | None, **options: Any
) -> Workload:
    """A workload for this card; of the card only the generation and the number of multiprocessors matter."""
    capability = gpu.compute_capability if gpu else None
    multiprocessors = gpu.multiprocessors if gpu else None
    return Workload(
        config=json.dumps(config, sort_keys=True),
        recipe=recipe,
        compute_capability=capability or AMPERE,
        multiprocessors=multiprocessors or A100_MULTIPROCESSORS,
        **options,
    )


def workload_to_json(workload: Workload) -> dict[str, object]:
    """Plain JSON values; the recipe under its task."""
    task = "training" if isinstance(workload.recipe, TrainingSpec) else "inference"
    return {**asdict(workload), "task": task}


def workload_from_json(value: Mapping[str, Any]) -> Workload:
    """The inverse of workload_to_json."""
    given = dict(value)
    given["recipe"] = recipe_from_json(given.pop("task"), given["recipe"])
    workload: Workload = from_json(Workload, given, "workload")
    return workload
