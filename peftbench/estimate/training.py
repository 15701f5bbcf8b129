"""The memory of one fine-tuning step: weights, adapters, optimizer and the moments of the step, by phase."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

from peftbench.base.plain import check_classes
from peftbench.base.units import human_bytes
from peftbench.estimate.forward.generations import rotary_table_bytes
from peftbench.estimate.forward.kernels import as_needed, kernels_of
from peftbench.estimate.forward.moments import StepMoments, step_moments
from peftbench.estimate.forward.step import Step, step_of
from peftbench.estimate.parts.base_weights import trained_weights, weight_components
from peftbench.estimate.parts.card import CardTraits, traits_of
from peftbench.estimate.parts.optimizer import optimizer_bytes
from peftbench.estimate.parts.slack import context
from peftbench.estimate.parts.tensors import TensorGroup, total_bytes, total_numel
from peftbench.estimate.peft_forward.dispatch import activations_modelled
from peftbench.estimate.peft_forward.virtual_tokens import stream_length, stream_tokens
from peftbench.estimate.peft_types.tensors import adapter_tensors, frozen_on_card_bytes
from peftbench.estimate.replay.reserved import HIGH_ERROR, beyond_tensors, on_full_card
from peftbench.estimate.replay.step import ALIKE, Batches
from peftbench.estimate.tape.ledger import Sizes, terms_of
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.model.weights import built_by
from peftbench.inputs.recipe import TrainingSpec
from peftbench.memory import ALWAYS, STEP, TRAINING, Component, Full, MemoryProfile, Part, Phase, exact, modelled

INPUT_BYTES_PER_TOKEN = 3 * 8
"""input_ids, attention_mask and labels as int64."""
_BETWEEN = {
    Part.GATHERED: "whole weights of the unit that runs and of the one that is fetched",
    Part.ACCUMULATED: "whole until the last micro-batch: the Trainer runs the others under no_sync",
    Part.BUCKETS: "gradients of one unit on their way to the other GPUs",
}
"""What several GPUs have beside the step's own tensors."""
_OFFLOADED = frozenset((Part.WEIGHTS, Part.UNQUANTIZED, Part.ADAPTERS, Part.GRADIENTS, Part.OPTIMIZER))
STEP_ERROR = 0.02
"""Relative error of the moments of a step against the dry run; see tests/oracles."""
UNEVEN_ERROR = 0.06
"""The same where experts run one after the other: tokens are counted as spread evenly, as no training has them."""
GUESSED_ERROR = 0.6
"""The same for the adapter without a program, adaption_prompt."""


def trained_tensors(model: ModelSpec, training: TrainingSpec) -> tuple[TensorGroup, ...]:
    """The tensors that the optimizer updates."""
    model = built_by(model, training.transformers)
    if training.adapter is None:
        return trained_weights(model, training.dtype)
    return adapter_tensors(model, training.adapter, training.dtype)


def trainable_parameters(model: ModelSpec, training: TrainingSpec) -> int:
    """How many parameters are trained."""
    return total_numel(trained_tensors(model, training))


def estimate_training(
    model: ModelSpec, training: TrainingSpec, gpu: GpuSpec | None = None, batches: Batches = ALIKE
) -> MemoryProfile:
    """Predict the memory of a training step from the second on, when optimizer states exist.

    `gpu` decides the attention kernel, cuBLAS workspaces and context; None stands for an Ampere card.
    Raises SpecError where the recipe cannot be: unknown target modules, optimizer or adapter type.
    """
    check_classes(model=(model, ModelSpec), recipe=(training, TrainingSpec), gpu=(gpu, GpuSpec | None))
    components = (*reserved_components(model, training, traits_of(gpu), batches), context(gpu, ALWAYS))
    if training.parallelism.gpus > 1:
        from peftbench.estimate.sharding.reserved import nccl

        components = (*components[:-1], *nccl(training.parallelism, gpu, ALWAYS), components[-1])
    profile = MemoryProfile(components, gpu.usable_bytes if gpu else None)
    return replace(profile, full=_full(profile, model, training, gpu, batches)) if gpu else profile


def _full(
    profile: MemoryProfile, model: ModelSpec, training: TrainingSpec, gpu: GpuSpec, batches: Batches
) -> Full | None:  # fmt: skip
    """What a card reserves that has room for the tensors, and less than the allocator would keep beside them."""
    alone = training.parallelism.gpus == 1 and not gpu.is_cpu
    if not alone or not profile.allocated_bytes <= gpu.usable_bytes < profile.needed_bytes - profile.context_bytes:
        return None
    model, components = built_by(model, training.transformers), profile.components[:-1]
    if training.parallelism.strategy != "none":
        from peftbench.estimate.sharding.split import as_run

        training = as_run(training)
    trained = trained_tensors(model, training)
    return on_full_card(components, model, training, traits_of(gpu), trained, batches, gpu.usable_bytes)


class Least(NamedTuple):
    """What torch's allocator has to reserve at the peak at least, which is found without a replay."""

    bytes: int
    """Tensors."""
    high_bytes: int
    """The upper end of the band if it reserved nothing else."""


def least_reserved(model: ModelSpec, training: TrainingSpec, card: CardTraits) -> Least:
    """What a search can tell before it replays. Raises as estimate_training."""
    return _least_reserved(model, training, as_needed(card, model, training))


@lru_cache(maxsize=8192)
def _least_reserved(model: ModelSpec, training: TrainingSpec, card: CardTraits) -> Least:
    """Searches on many cards ask for the same recipes."""
    profile = MemoryProfile(reserved_components(model, training, card, None))
    trained = profile.peak_phase in TRAINING and card.slack_factor is None and not card.on_cpu
    return Least(profile.reserved_bytes, round(profile.reserved_bytes * (1 + HIGH_ERROR * trained)))


def reserved_components(
    model: ModelSpec, training: TrainingSpec, card: CardTraits, batches: Batches | None = ALIKE
) -> tuple[Component, ...]:
    """What torch's allocator reserves: all but the context and NCCL's connections. Raises as estimate_training.

    Without `batches` nothing is replayed, and what the allocator keeps is left out: ten times as fast, for a search.
    """
    model = built_by(model, training.transformers)
    if training.parallelism.strategy != "none":
        from peftbench.estimate.sharding.split import as_run

        training = as_run(training)
    components = [
        *_weights(model, training),
        *_rotary_tables(model, training),
        *_trained(model, training, card.on_cpu),
        exact(
            Part.WORKSPACE, card.cublas_bytes + training.tokens * INPUT_BYTES_PER_TOKEN, TRAINING,
            "cuBLAS workspaces of two threads, and the batch itself",
        ),
        *_moments(model, training, card),
    ]  # fmt: skip
    trained = trained_tensors(model, training)
    if training.parallelism.gpus == 1:
        beyond = beyond_tensors(components, model, training, card, trained, batches) if batches else []
        return (*components, *beyond)
    from peftbench.estimate.sharding.reserved import beyond_shared

    return (*components, *beyond_shared(components, model, training, card, trained, batches))


# ── what is alive throughout ────────────────────────────────────────────────────────────────────────────────────────


def _weights(model: ModelSpec, training: TrainingSpec) -> Sequence[Component]:
    """The base model, or this GPU's part of it."""
    if training.parallelism.shards_weights:
        from peftbench.estimate.sharding.split import sharded_weights

        return sharded_weights(model, training, ALWAYS)
    return weight_components(model, training.dtype, training.quantization, ALWAYS)


def _rotary_tables(model: ModelSpec, training: TrainingSpec) -> list[Component]:
    size = rotary_table_bytes(model, training)
    return [exact(Part.WEIGHTS, size, ALWAYS, "cos and sin of every position, in every layer")] if size else []


def _trained(model: ModelSpec, training: TrainingSpec, on_cpu: bool) -> list[Component]:
    """Adapters, optimizer states and temporaries, and gradients where they are all alive."""
    tensors = trained_tensors(model, training)
    if training.parallelism.strategy != "none":
        from peftbench.estimate.sharding.state import own_trained

        return own_trained(model, training, tensors, on_cpu)
    optimizer = optimizer_bytes(tensors, training.optimizer, training.loop == "trainer", on_cpu)
    count, gradient_bytes = total_numel(tensors), total_bytes(tensors)
    states = f"states of {training.optimizer}"
    if optimizer.paged_bytes:
        states += f"; {human_bytes(optimizer.paged_bytes)} more is paged, outside torch's allocator"
    kept = TRAINING if training.gradients_outlive_step else STEP
    parts = [
        exact(Part.GRADIENTS, gradient_bytes, kept, f"{count:,} trained parameters"),
        exact(Part.OPTIMIZER, optimizer.state_bytes, TRAINING, states),
        exact(Part.OPTIMIZER, _importance_bytes(training, gradient_bytes), TRAINING, "AdaLoRA's importance, thrice"),
        exact(Part.OPTIMIZER_TEMPORARIES, optimizer.step_temporary_bytes, STEP, f"{training.optimizer}'s, in its step"),
    ]  # fmt: skip
    if training.adapter is not None:
        frozen = frozen_on_card_bytes(model, training.adapter, training.dtype, training.moves_model)
        size = gradient_bytes + frozen
        because = f"{count:,} parameters in {training.adapter.dtype}"
        parts.insert(0, exact(Part.ADAPTERS, size, ALWAYS, because))
    return [part for part in parts if part.bytes]


def _importance_bytes(training: TrainingSpec, trained_bytes: int) -> int:
    """AdaLoRA in a plain loop: update_and_allocate keeps the last importance and two averages of every element.

    The Trainer never calls it. Source: RankAllocator.update_ipt in peft/tuners/adalora/layer.py.
    """
    allocates = training.adapter is not None and training.adapter.peft_type == "adalora" and training.loop != "trainer"
    return 3 * trained_bytes if allocates else 0


# ── the moments of a step ───────────────────────────────────────────────────────────────────────────────────────────


def _moments(model: ModelSpec, training: TrainingSpec, card: CardTraits) -> list[Component]:
    step = moments_of(model, training, card)
    tokens, length = stream_tokens(training), stream_length(training)
    forward = max(step.forward, key=lambda m: m.bytes_at(tokens, length))
    backward = max(step.backward, key=lambda m: m.bytes_at(tokens, length))
    held, error = step.outputs if training.loop == "plain" else {}, UNEVEN_ERROR if model.split_experts else STEP_ERROR
    return [
        *_components(forward.by_part, Phase.FORWARD, training, error=error),
        *_components(held, Phase.FORWARD, training, "outputs of the step before, which the loop still holds"),
        *_components(backward.by_part, Phase.BACKWARD, training, error=error),
        *_components(held, Phase.STEP, training, "outputs that the loop still holds"),
    ]


def moments_of(model: ModelSpec, training: TrainingSpec, card: CardTraits) -> StepMoments:
    """The moments of this recipe's step, from the cache where only the number of tokens differs."""
    if training.parallelism.strategy == "zero2":  # reduces and frees the gradients of every micro-batch
        training = replace(training, gradient_accumulation_steps=1)
    if not training.parallelism.shards_gradients:
        return step_moments(step_of(model, training, kernels_of(model, training, card)))
    from peftbench.estimate.sharding.split import computing

    computed = computing(training)
    step = step_of(model, computed, kernels_of(model, computed, card))
    return _sharded_moments(step, replace(training, micro_batch_size=1, sequence_length=1))


@lru_cache(maxsize=8192)
def _sharded_moments(step: Step, training: TrainingSpec) -> StepMoments:
    from peftbench.estimate.sharding.step import own_moments

    return own_moments(step_moments(step), step.model, training, trained_tensors(step.model, training))


def _components(
    sizes: Sizes, phase: Phase, training: TrainingSpec, because: str = "", error: float = STEP_ERROR
) -> list[Component]:
    tokens, length, phases = stream_tokens(training), stream_length(training), frozenset({phase})
    components = []
    for part, (per_token, per_pair, fixed) in sizes.items():
        each = per_token + per_pair * length
        if size := each * tokens + fixed:
            text = because or _BETWEEN.get(part) or terms_of(each, fixed, tokens)
            spread = error
            if part is Part.ACTIVATIONS and not activations_modelled(training.adapter):
                spread, text = GUESSED_ERROR, f"{text}; a guess: this adapter's forward pass is not modelled"
            components.append(modelled(part, size, phases, text, spread))
    return components


# ── what CPU offload moves to the host ──────────────────────────────────────────────────────────────────────────────


def host_bytes(model: ModelSpec, training: TrainingSpec) -> int:
    """What one GPU of several keeps in the host's memory under CPU offload.

    These are the bytes that the same recipe without offload would keep on the GPU at its optimizer step.

    ZeRO-1 sums whole gradients, but sends the host only this GPU's part of them, as ZeRO-2 does
    (copy_gradients_in_cpu in deepspeed/runtime/zero/stage_1_and_2.py).
    """
    parallelism = training.parallelism
    strategy = "zero2" if parallelism.strategy == "zero1" else parallelism.strategy
    on_gpu = replace(training, parallelism=replace(parallelism, cpu_offload=False, strategy=strategy))
    offloaded = replace(training, parallelism=replace(parallelism, strategy=strategy))
    return _kept_bytes(estimate_training(model, on_gpu)) - _kept_bytes(estimate_training(model, offloaded))


def _kept_bytes(profile: MemoryProfile) -> int:
    return sum(c.bytes for c in profile.alive_in(Phase.STEP) if c.part in _OFFLOADED)
