"""The moments of a step when weights are gathered unit by unit and gradients are dealt out as they come."""

from __future__ import annotations

from typing import NamedTuple

from peftbench.estimate.forward.moments import StepMoments, Stretch
from peftbench.estimate.parts.tensors import TensorGroup, total_bytes
from peftbench.estimate.sharding import fsdp2
from peftbench.estimate.sharding.split import computing, flat_parameters, gathered, is_fsdp, is_fsdp2, trained_parts
from peftbench.estimate.sharding.state import accumulated_bytes, gradient_part_bytes
from peftbench.estimate.sharding.units import Units, units_of
from peftbench.estimate.tape.ledger import Moment, Sizes, add_sizes, largest_moments, shift
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.model.weights import num_parameters, weights_of
from peftbench.inputs.recipe import TrainingSpec
from peftbench.memory import Part


def own_moments(
    step: StepMoments, model: ModelSpec, training: TrainingSpec, tensors: tuple[TensorGroup, ...]
) -> StepMoments:
    """The moments of one GPU; what is gathered and dealt out does not depend on the tokens."""
    parallelism = training.parallelism
    kept_bytes = gradient_part_bytes(tensors, trained_parts(tensors, training), training)
    whole = max(total_bytes(gathered(tensors, training)), 1)
    computed = computing(training)
    units = units_of(model, computed, sum(t.numel for t in tensors) * computed.dtype.bytes if training.adapter else 0)
    at_once = kept_bytes if parallelism.strategy == "zero2" and not parallelism.cpu_offload else 0
    share = 0.0 if at_once or parallelism.strategy == "zero3" or parallelism.cpu_offload else kept_bytes / whole
    waiting = Waiting(accumulated_bytes(tensors, training), 0 if training.zero_grad_keeps else round(share * whole))
    forward: list[Moment] = []
    backward: list[Moment] = []
    for stretch in (*step.stretches, *step.between) if is_fsdp2(training) else step.stretches:
        reduced = [_reduced(stretch, moment, units, model, training, whole) for moment in stretch.moments]
        moments = [_own_gradients(m, size, share, at_once) for m, size in zip(stretch.moments, reduced, strict=True)]
        beside = _beside(stretch, units, model, training)
        for passing in _passes(stretch, beside, waiting, _done_share(stretch, units, model, training)):
            (backward if stretch.backward else forward).extend(shift(moments, passing))
    return StepMoments(largest_moments(forward), largest_moments(backward), step.outputs)


class Waiting(NamedTuple):
    """Gradients that wait for the last micro-batch: bytes of all of them, and of the part that one GPU keeps."""

    whole: int
    part: int


def _passes(stretch: Stretch, beside: Sizes, waiting: Waiting, done: float) -> list[Sizes]:
    """What is beside the step's tensors in each kind of pass.

    Where whole gradients wait, all but the last backward pass reduce nothing. The last one turns those of the units
    that are done into this GPU's part.
    """
    if not waiting.whole or not stretch.backward:
        return [beside]
    kept, part = waiting.whole - round(done * waiting.whole), round(done * waiting.part)
    last = add_sizes(beside, {Part.ACCUMULATED: (0, 0, kept), Part.GRADIENTS: (0, 0, part)})
    if stretch.unit == "reduce":
        return [last]
    unreduced: Sizes = {part: size for part, size in beside.items() if part is not Part.BUCKETS}
    return [add_sizes(unreduced, {Part.ACCUMULATED: (0, 0, waiting.whole)}), last]


def _done_share(stretch: Stretch, units: Units, model: ModelSpec, training: TrainingSpec) -> float:
    """How much of the trained parameters is in units whose backward is done; FSDP1's root is done last."""
    if training.adapter is not None:
        return stretch.above / model.num_hidden_layers
    waits = flat_parameters(training) or model.tie_word_embeddings or stretch.unit in ("loss", "head")
    waits = waits or (stretch.unit == "reduce" and not stretch.above)
    head = 0 if waits else units.head
    return (head + stretch.above * units.layer) / max(units.whole, 1)


def _reduced(
    stretch: Stretch, moment: Moment, units: Units, model: ModelSpec, training: TrainingSpec, trained_bytes: int
) -> int:  # fmt: skip
    """Bytes of this moment's gradients of which this GPU has its part only."""
    if is_fsdp2(training):
        return fsdp2.reduced_bytes(stretch, units, model, training)
    unit = {"layer": units.layer, "embedding": units.embedding or units.head}.get(stretch.unit, units.head)
    if training.adapter is not None:
        unit = trained_bytes // model.num_hidden_layers
    return max(moment.by_part.get(Part.GRADIENTS, (0, 0, 0))[2] - unit, 0)


def _own_gradients(moment: Moment, reduced: int, share: float, at_once: int) -> Moment:
    """This GPU keeps only its share of `reduced` bytes of gradients.

    ZeRO-2 makes room for its whole part `at_once`: that of the last GPU with the first gradient, which is the head's
    (copy_grads_in_partition in deepspeed/runtime/zero/stage_1_and_2.py).
    """
    per_token, per_pair, fixed = moment.by_part.get(Part.GRADIENTS, (0, 0, 0))
    kept = fixed - reduced + round(reduced * share) + (at_once if fixed else 0)
    by_part = {**moment.by_part, Part.GRADIENTS: (per_token, per_pair, kept)}
    return moment._replace(fixed=moment.fixed - fixed + kept, by_part=by_part)


# ── what is alive beside a step's own tensors ───────────────────────────────────────────────────────────────────────


def _beside(stretch: Stretch, units: Units, model: ModelSpec, training: TrainingSpec) -> Sizes:
    if is_fsdp2(training):
        return fsdp2.beside(stretch, units, model, training)
    sizes: Sizes = {}
    if whole := _gathered_bytes(stretch, units, model, training):
        sizes[Part.GATHERED] = (0, 0, whole)
    if is_fsdp(training.parallelism) and stretch.backward and stretch.unit == "layer" and stretch.above:
        sizes |= _held_by_hooks(stretch, model, training)
    return sizes


def _gathered_bytes(stretch: Stretch, units: Units, model: ModelSpec, training: TrainingSpec) -> int:
    """Whole weights while this unit runs, of FSDP1 and ZeRO-3."""
    strategy = training.parallelism.strategy
    if strategy == "fsdp-grad-op" and training.defers_reduction:
        return units.whole  # FSDP1 keeps them under no_sync: _should_free_in_backward
    if strategy == "fsdp-grad-op":  # each layer is let go of when its backward is done
        below = model.num_hidden_layers - (stretch.above if stretch.backward else 0)
        return min(units.whole, units.embedding + units.head + below * units.layer)
    if strategy == "zero3":
        return _live_bytes(stretch, units, model, training)
    return _flat_gathered(stretch, units, model) if strategy == "fsdp" else 0


def _flat_gathered(stretch: Stretch, units: Units, model: ModelSpec) -> int:
    """FSDP1: the root, which has what is outside the layers, stays; BACKWARD_PRE fetches one layer ahead.

    Source: the strategies of _lazy_init and _prefetch_handle in torch/distributed/fsdp.
    """
    root = units.embedding + units.head
    ahead = stretch.backward and stretch.above < model.num_hidden_layers - 1
    return root + (units.layer * (2 if ahead else 1) if stretch.unit == "layer" else 0)


def _live_bytes(stretch: Stretch, units: Units, model: ModelSpec, training: TrainingSpec) -> int:
    """ZeRO-3 fetches ahead until so many elements are there, and then one parameter more; the unit itself at least.

    Each submodule prefetches at least one parameter, so the limit is reached; while it is not, even the head is fetched
    in one go. Source: fetch_sub_module in deepspeed/runtime/zero/partitioned_param_coordinator.py.
    """
    each, table = units.whole / num_parameters(model), units.embedding or units.head
    matrix = max((w.numel for w in weights_of(model) if w.layers is not None), default=0) * each
    unit, following = {
        "layer": (units.layer, matrix if stretch.backward else units.head),
        "head": (units.head, 0),
        "loss": (units.head, 0),
        "embedding": (table, table),
    }[stretch.unit]
    ahead = round(min(training.parallelism.max_live_parameters * each, units.whole) + following)
    return min(units.whole, max(unit, ahead))


def _held_by_hooks(stretch: Stretch, model: ModelSpec, training: TrainingSpec) -> Sizes:
    """FSDP1 with frozen layers and reentrant checkpoints: inputs of the layers above, and their gradients, stay.

    A frozen unit learns of the end of its backward from a hook on its inputs, which are leaves of the recomputed
    graph; the hook's handle keeps the node that accumulates a leaf's gradient, and so leaf and gradient, until the
    whole backward is over. The gradient of the layer just above is there anyway.
    Source: _register_post_backward_reshard_only_hook in torch/distributed/fsdp/_runtime_utils.py. Seen in
    fms-acceleration: LoRA on two and four GPUs takes 60 × hidden size bytes a token more than on one, of 32 layers.
    """
    if training.adapter is None or not training.gradient_checkpointing or not training.use_reentrant:
        return {}
    stream = model.hidden_size * training.dtype.bytes
    return {
        Part.CHECKPOINTS: (stretch.above * stream, 0, 0),
        Part.ACTIVATIONS: ((stretch.above - 1) * stream, 0, 0),
    }
