"""What a step needs beyond its tensors: what blocks are larger, and what the allocator keeps, by a replay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from peftbench.allocator.simulation import OutOfMemory
from peftbench.estimate.forward.kernels import as_needed
from peftbench.estimate.parts.card import CardTraits
from peftbench.estimate.parts.slack import slack
from peftbench.estimate.parts.tensors import TensorGroup
from peftbench.estimate.peft_forward.virtual_tokens import stream_tokens
from peftbench.estimate.replay.step import ELSEWHERE, Batches, Replayed, Totals, replay_step
from peftbench.estimate.tape.autograd import FLOAT32
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.recipe import TrainingSpec
from peftbench.memory import ALWAYS, TRAINING, Component, Full, Part, exact

if TYPE_CHECKING:
    from peftbench.estimate.replay.shards import Sharding

LOW_ERROR, HIGH_ERROR = 0.05, 0.07
"""Shares of what is reserved: nine of ten runs of a source are within what the other sources' runs say. Sources are
dry runs, PEFT's method comparison, fms-acceleration and a T4."""
SHARED_ERROR = 0.14
"""The same for a GPU of several, where blocks of shared weights and gradients are not replayed: FSDP1 and DeepSpeed."""
FUSED_BLOCKS = (1, 2)
"""Float32 copies of the logits that a fused cross-entropy keeps beyond the replay, expected and at most.

Seen in 21 published runs of fms-acceleration with transformers 4.4x, which reserve as much as without the kernel
though they allocate less: 0.3 to 1.8. The cause is not known.
"""


def beyond_tensors(
    components: Sequence[Component], model: ModelSpec, training: TrainingSpec, card: CardTraits,
    trained: tuple[TensorGroup, ...], batches: Batches, sharding: Sharding | None = None,
) -> list[Component]:  # fmt: skip
    """Beside the tensors in `components`, of a recipe that trains these tensors on this GPU.

    DDP's replay is that of one GPU, with its buckets, for any number. Where weights are shared by other means than
    FSDP2's, the step's own blocks are replayed without what is shared: weights, gradients and states.
    """
    if card.on_cpu:
        return [slack(0, 0, 0, TRAINING, card)]
    replicated = training.parallelism.strategy == "ddp"
    complete = training.parallelism.gpus == 1 or replicated or sharding is not None
    traits = as_needed(card, model, training)._replace(slack_factor=None)
    if replicated:
        training = replace(training, parallelism=replace(TrainingSpec.parallelism, gpus=2, strategy="ddp"))
    if complete:
        replayed = replay_step(model, training, traits, trained, _totals(components), batches, sharding)
    else:
        replayed = replay_step(model, _unshared(training), traits, (), ELSEWHERE, batches)
    because = "beyond the tensors: of a block that is found too large, up to 1 MiB is not split off"
    rounding = exact(Part.WORKSPACE, replayed.rounding_bytes, TRAINING, because)
    allocated = replayed.allocated_bytes
    tensors = rounding.bytes + max(sum(c.bytes for c in components if phase in c.phases) for phase in TRAINING)
    kept = max(replayed.reserved_bytes - (tensors if complete else allocated), 0)
    expected, most = (blocks * _logits_bytes(model, training) for blocks in FUSED_BLOCKS)
    reserved = tensors + kept
    low, high = (round(reserved * (error if complete else SHARED_ERROR)) for error in (LOW_ERROR, HIGH_ERROR))
    reserve = slack(kept + expected, low + expected, high + most - expected, TRAINING, card)
    return [*([rounding] if rounding.bytes else []), reserve]


def on_full_card(
    components: Sequence[Component], model: ModelSpec, training: TrainingSpec, card: CardTraits,
    trained: tuple[TensorGroup, ...], batches: Batches, usable_bytes: int,
) -> Full | None:  # fmt: skip
    """What is reserved where a GPU leaves less to the allocator than it would keep; None where that fails.

    At least it is what is reserved after the cache was emptied to go on, also where a fused kernel's copies of the
    logits, which are not replayed, had filled the card.
    """
    traits = as_needed(card, model, training)._replace(slack_factor=None)
    whole = model, training, traits, trained, _totals(components), batches, None
    replayed = _limited(*whole, usable_bytes)
    if replayed is None:
        return None
    copies_bytes = FUSED_BLOCKS[0] * _logits_bytes(model, training)
    beside_copies = _limited(*whole, usable_bytes - copies_bytes) or replayed
    low_bytes = min(replayed.flushed_bytes, beside_copies.flushed_bytes)
    return Full(min(replayed.reserved_bytes, usable_bytes), round(low_bytes * (1 - LOW_ERROR)))


def _limited(*asked: Any) -> Replayed | None:
    """The replay on a card of some size; None where it runs out of memory."""
    try:
        return replay_step(*asked)
    except OutOfMemory:
        return None


def _logits_bytes(model: ModelSpec, training: TrainingSpec) -> int:
    """Float32 logits where a fused kernel of older generations reads them; else 0."""
    fused = training.loss == "fused" and training.transformers != "5" and training.parallelism.gpus == 1
    return stream_tokens(training) * model.vocab_size * FLOAT32 if fused else 0


def _unshared(training: TrainingSpec) -> TrainingSpec:
    """What the step's own blocks depend on."""
    return replace(training, parallelism=TrainingSpec.parallelism, optimizer=TrainingSpec.optimizer)


def _totals(components: Sequence[Component]) -> Totals:
    return Totals(
        weights=sum(c.bytes for c in components if c.phases == ALWAYS),
        states=sum(c.bytes for c in components if c.part is Part.OPTIMIZER),
        temporaries=sum(c.bytes for c in components if c.part is Part.OPTIMIZER_TEMPORARIES),
    )
