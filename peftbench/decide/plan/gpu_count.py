"""The smallest number of equal cards on which a recipe fits, sharded over them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from peftbench.base.errors import SpecError
from peftbench.decide.asked import Asked, arguments_of, asked_over
from peftbench.decide.plan.largest import least_fits
from peftbench.decide.verdict import Fit, judge
from peftbench.estimate.sharding.loading import in_parts
from peftbench.estimate.training import estimate_training
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.recipe import InferenceSpec, ParallelismSpec, TrainingSpec
from peftbench.inputs.recipe.parallelism import GPUS_PER_NODE, usual_nodes
from peftbench.memory import MemoryProfile

COUNTS = (*range(1, GPUS_PER_NODE + 1), *range(2 * GPUS_PER_NODE, 65, GPUS_PER_NODE))
"""Any number within a node, then whole nodes."""


def smallest_count(
    model: ModelSpec, recipe: TrainingSpec | InferenceSpec, gpu: GpuSpec
) -> ParallelismSpec | None:
    """The smallest count that fits even at the high end of its band; None where none of COUNTS does.

    The strategy is the recipe's, or fsdp for training and tensor for inference where it has none. Raises SpecError for
    a recipe that several GPUs cannot share.
    """
    heads = model.num_attention_heads
    shares_heads = isinstance(recipe, InferenceSpec)
    for gpus in (count for count in COUNTS if not shares_heads or heads % count == 0):
        for shared in _loaded(replace(recipe, parallelism=spread(recipe, gpus))):
            if isinstance(shared, TrainingSpec) and not least_fits(model, shared, gpu):
                continue
            if judge(_profile(model, shared, gpu), gpu).fit is Fit.FITS:
                return shared.parallelism
    return None


def _loaded(recipe: TrainingSpec | InferenceSpec) -> Iterator[TrainingSpec | InferenceSpec]:
    """As the libraries load it, and in parts where each GPU would hold the whole model first."""
    yield recipe
    if isinstance(recipe, TrainingSpec) and (parts := in_parts(recipe)):
        yield parts


def more_cards(
    model: ModelSpec, training: TrainingSpec, gpu: GpuSpec, asked: Asked | None
) -> tuple[ParallelismSpec, tuple[str, ...]] | None:
    """The smallest count above the recipe's own that fits, and what to type for it; None where there is none."""
    try:
        found = smallest_count(model, training, gpu)
    except SpecError:  # one GPU can run it, several cannot share it: a bitsandbytes optimizer
        return None
    if found is None or found.gpus <= training.parallelism.gpus:
        return None
    typed = (asked or asked_over(training)).leading_to(
        replace(training, parallelism=found), model, gpu, {"gpus": found.gpus}
    )
    return (found, arguments_of(typed)) if typed else None


def on_fewest(
    model: ModelSpec, recipe: TrainingSpec | InferenceSpec, gpu: GpuSpec
) -> TrainingSpec | InferenceSpec:
    """The recipe on the smallest count that fits. Raises SpecError where none does."""
    found = smallest_count(model, recipe, gpu)
    if found is None:
        most = spread(recipe, COUNTS[-1])
        what = f"{model.name} does not fit on {COUNTS[-1]} × {gpu.name} with {most.strategy}."
        raise SpecError(what, _what_else(replace(recipe, parallelism=most)))
    return replace(recipe, parallelism=found)


def _what_else(recipe: TrainingSpec | InferenceSpec) -> str:
    """What may still help where so many GPUs do not."""
    parallelism = recipe.parallelism
    if isinstance(recipe, TrainingSpec) and recipe.defers_reduction:
        return "FSDP keeps whole gradients until the last micro-batch: try --sync-each-batch."
    if parallelism.strategy == "ddp":
        return "Every GPU of ddp has the whole model: try --parallel fsdp."
    if parallelism.shards_optimizer and not parallelism.cpu_offload:
        return "Try --cpu-offload, shorter sequences, or a larger card."
    return "Try shorter sequences, or a larger card."


def spread(recipe: TrainingSpec | InferenceSpec, gpus: int) -> ParallelismSpec:
    """The recipe's parallelism on so many GPUs, in nodes of eight."""
    parallelism = recipe.parallelism
    default = "tensor" if isinstance(recipe, InferenceSpec) else "fsdp"
    strategy = default if parallelism.strategy == "none" else parallelism.strategy
    if gpus == 1 and not parallelism.cpu_offload:
        strategy = "none"
    return replace(parallelism, gpus=gpus, nodes=usual_nodes(gpus), strategy=strategy)


def _profile(model: ModelSpec, recipe: TrainingSpec | InferenceSpec, gpu: GpuSpec) -> MemoryProfile:
    if isinstance(recipe, TrainingSpec):
        return estimate_training(model, recipe, gpu)
    from peftbench.estimate.inference import estimate_inference

    return estimate_inference(model, recipe, gpu)
