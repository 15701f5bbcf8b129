"""What FSDP2 has beside a step's tensors: gathered weights, their buffers, and gradients on their way.

All of it follows from FSDPParamGroup in torch/distributed/fsdp/_fully_shard/_fsdp_param_group.py (torch 2.13), as
Accelerate sets it up; dry runs run that very code, and tests/benchmarks/several_gpus.py compares.
"""

from __future__ import annotations

from peftbench.estimate.forward.moments import Stretch
from peftbench.estimate.sharding.split import stored_dtype
from peftbench.estimate.sharding.units import Units
from peftbench.estimate.tape.ledger import Sizes
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.recipe import TrainingSpec
from peftbench.memory import Part


def beside(stretch: Stretch, units: Units, model: ModelSpec, training: TrainingSpec) -> Sizes:
    """Bytes by part beside the step's own tensors."""
    sizes: Sizes = {Part.GATHERED: (0, 0, _gathered_bytes(stretch, units, model, training))}
    if stretch.backward:
        sizes[Part.BUCKETS] = (0, 0, _reducing_bytes(stretch, units, model, training))
        if stretch.unit == "reduce":
            sizes[Part.GRADIENTS] = (0, 0, _part_bytes(stretch, units, model, training))
    return {part: size for part, size in sizes.items() if size[2]}


def reduced_bytes(stretch: Stretch, units: Units, model: ModelSpec, training: TrainingSpec) -> int:
    """Bytes of whole gradients that were dealt out by then.

    Those of tied embeddings are in the end: their unit's first input, the tokens, has no gradient, and so no hook.
    """
    waits = units.head if model.tie_word_embeddings and training.adapter is None else 0
    return max(stretch.reduced - waits, 0)


# ── gathered weights ────────────────────────────────────────────────────────────────────────────────────────────────


def _gathered_bytes(stretch: Stretch, units: Units, model: ModelSpec, training: TrainingSpec) -> int:
    """Weights of the units that are whole, and the buffers that they or the next ones are gathered into.

    The head's unit stays from its forward to its backward pass; when tied, it is whole from the embeddings on to the
    end. SHARD_GRAD_OP keeps every unit until its backward is done, and fetches nothing then.
    """
    keeps = training.parallelism.strategy == "fsdp-grad-op"
    if not stretch.backward:
        return _buffers_in_forward(stretch, units, model) + _whole_in_forward(stretch, units, model, keeps)
    if keeps:
        below = (model.num_hidden_layers - stretch.above) * units.layer + units.embedding
        head = units.head if model.tie_word_embeddings or stretch.unit in ("loss", "head") else 0
        return 0 if stretch.unit == "reduce" and stretch.above else below + head
    return _gathered_in_backward(stretch, units, model)


def _buffers_in_forward(stretch: Stretch, units: Units, model: ModelSpec) -> int:
    """A unit's buffer stays until the next one has copied its own out: both are there for a moment ("gather")."""
    tied = model.tie_word_embeddings
    if stretch.unit == "gather":
        if not stretch.above:
            return units.layer + (units.head if tied else units.embedding)
        return units.layer + (units.layer if tied else units.head)
    return units.layer if stretch.unit == "layer" or tied else units.head


def _whole_in_forward(stretch: Stretch, units: Units, model: ModelSpec, keeps: bool) -> int:
    tied, layers = model.tie_word_embeddings, 0 if stretch.unit == "head" else units.layer
    if keeps:
        started = 1 if stretch.unit == "gather" and not stretch.above else model.num_hidden_layers
        head = units.head if tied or stretch.unit != "gather" or stretch.above else 0
        return units.embedding + started * units.layer + head
    if stretch.unit == "gather" and stretch.above and not tied:
        return units.head
    return (units.head if tied or stretch.unit == "head" else 0) + layers


def _gathered_in_backward(stretch: Stretch, units: Units, model: ModelSpec) -> int:
    """Each unit's backward fetches the next: the head's the last layer, the first layer's the embeddings.

    Frozen embeddings are fetched too, and lie there to the end.
    """
    head = units.head if model.tie_word_embeddings else 0
    first = stretch.above == model.num_hidden_layers - 1
    if stretch.unit == "reduce":
        return 0 if stretch.above else head + units.layer
    return {
        "loss": units.head,
        "head": units.head + units.layer,
        "layer": head + units.layer + (units.embedding if first else units.layer),
        "embedding": head + units.embedding,
    }[stretch.unit]


# ── gradients on their way ──────────────────────────────────────────────────────────────────────────────────────────


def _reducing_bytes(stretch: Stretch, units: Units, model: ModelSpec, training: TrainingSpec) -> int:
    """What gradients are joined in to be reduced; it stays until the next unit is through.

    While a unit is reduced, its part comes out in the type of the whole gradients before it is cast to its own.
    """
    if stretch.unit == "reduce":
        unit = _reduced_unit(stretch, units, model, training)
        return unit + (unit // training.parallelism.gpus if _casts(training) else 0)
    if stretch.unit in ("loss", "head"):
        return 0
    if stretch.above:
        return units.adapter if training.adapter else units.layer
    return 0 if training.adapter or model.tie_word_embeddings else units.head


def _reduced_unit(stretch: Stretch, units: Units, model: ModelSpec, training: TrainingSpec) -> int:
    """Bytes of the unit that is reduced while no unit runs; adapters are in layers only."""
    if training.adapter is not None:
        return 0
    if stretch.above:
        return units.embedding or units.head
    return 0 if model.tie_word_embeddings else units.head


def _part_bytes(stretch: Stretch, units: Units, model: ModelSpec, training: TrainingSpec) -> int:
    """This GPU's part of the gradients that are reduced; the last of the whole ones stays (foreach_reduce's loop)."""
    part = _reduced_unit(stretch, units, model, training) // training.parallelism.gpus
    stored = stored_dtype(training, training.dtype).bytes
    return part * stored // 2 if _casts(training) else part


def _casts(training: TrainingSpec) -> bool:
    """Whether parts of gradients are wider than whole ones: float32 under mixed precision."""
    return training.autocast
