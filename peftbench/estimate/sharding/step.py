"""The moments of a step when weights are gathered unit by unit and gradients are dealt out as they come."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from peftbench.estimate.forward.moments import StepMoments, Stretch
from peftbench.estimate.parts.base_weights import quantized_weights
from peftbench.estimate.parts.tensors import TensorGroup, total_bytes
from peftbench.estimate.sharding.split import flat_parameters, is_fsdp, trained_parts
from peftbench.estimate.sharding.state import accumulated_bytes, gradient_part_bytes
from peftbench.estimate.sharding.zero import MAX_LIVE_NUMEL, prefetch_numel
from peftbench.estimate.tape.ledger import Moment, Sizes, add_sizes, largest_moments, shift
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.model.weights import Role, Weight, num_parameters, weights_of
from peftbench.inputs.recipe import QuantizationSpec, TrainingSpec
from peftbench.memory import Part


class Units(NamedTuple):
    """Bytes of the whole units, as they are gathered."""

    layer: int
    """The largest decoder layer, its adapters included."""
    embedding: int
    head: int
    """Final norm and lm_head, and the embeddings where they are tied."""
    whole: int


def units_of(model: ModelSpec, training: TrainingSpec, adapter_numel: int) -> Units:
    """What FSDP gathers at a time: a decoder layer, the embeddings, and the norm with the head.

    Source: fsdp2_prepare_model in accelerate/utils/fsdp_utils.py, which makes units of the last two.
    """
    return _units(model, training.dtype.bytes, training.quantization, adapter_numel)


@lru_cache(maxsize=2048)
def _units(model: ModelSpec, itemsize: int, quantization: QuantizationSpec | None, adapter_numel: int) -> Units:
    """By what they depend on: `choose` asks for many numbers of GPUs."""
    quantized = set(quantized_weights(model, quantization))

    def size(weight: Weight) -> int:
        if quantization is not None and weight in quantized:
            return weight.copies * quantization.scheme.code_bytes(weight.numel)
        return weight.copies * weight.numel * itemsize

    weights = weights_of(model)
    layers = [sum(size(w) for w in weights if w.layers and i in w.layers) for i in range(model.num_hidden_layers)]
    adapter = adapter_numel * itemsize
    table = sum(size(w) for w in weights if w.role is Role.EMBEDDING)
    head = sum(size(w) for w in weights if w.layers is None and w.role is not Role.EMBEDDING)
    if model.tie_word_embeddings:
        table, head = 0, head + table
    return Units(max(layers) + adapter // len(layers), table, head, sum(layers) + table + head + adapter)


def own_moments(
    step: StepMoments, model: ModelSpec, training: TrainingSpec, tensors: tuple[TensorGroup, ...]
) -> StepMoments:
    """The moments of one GPU; what is gathered and dealt out does not depend on the tokens."""
    parallelism = training.parallelism
    kept_bytes = gradient_part_bytes(tensors, trained_parts(tensors, training), training)
    adapter_numel = sum(t.numel for t in tensors) if training.adapter else 0
    units = units_of(model, training, adapter_numel)
    whole = max(total_bytes(tensors), 1)
    at_once = kept_bytes if parallelism.strategy == "zero2" and not parallelism.cpu_offload else 0
    share = 0.0 if at_once or parallelism.strategy == "zero3" or parallelism.cpu_offload else kept_bytes / whole
    waiting = Waiting(accumulated_bytes(tensors, training), 0 if training.zero_grad_keeps else round(share * whole))
    forward: list[Moment] = []
    backward: list[Moment] = []
    for stretch in step.stretches:
        unit = _unit_gradients(stretch, units, model, training, whole)
        moments = [_own_gradients(moment, unit, share, at_once) for moment in stretch.moments]
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
    unreduced: Sizes = {part: size for part, size in beside.items() if part is not Part.BUCKETS}
    kept, part = waiting.whole - round(done * waiting.whole), round(done * waiting.part)
    return [
        add_sizes(unreduced, {Part.ACCUMULATED: (0, 0, waiting.whole)}),
        add_sizes(beside, {Part.ACCUMULATED: (0, 0, kept), Part.GRADIENTS: (0, 0, part)}),
    ]


def _done_share(stretch: Stretch, units: Units, model: ModelSpec, training: TrainingSpec) -> float:
    """How much of the trained parameters is in units whose backward is done; FSDP1's root is done last."""
    if training.adapter is not None:
        return stretch.above / model.num_hidden_layers
    head = 0 if flat_parameters(training) or model.tie_word_embeddings or stretch.unit == "head" else units.head
    return (head + stretch.above * units.layer) / max(units.whole, 1)


def _unit_gradients(
    stretch: Stretch, units: Units, model: ModelSpec, training: TrainingSpec, trained_bytes: int
) -> int:
    """Gradients of the unit that runs, which are whole until it is through."""
    if training.adapter is not None:
        return trained_bytes // model.num_hidden_layers
    return {"layer": units.layer, "head": units.head, "embedding": units.embedding or units.head}[stretch.unit]


def _own_gradients(moment: Moment, unit_bytes: int, share: float, at_once: int) -> Moment:
    """Gradients beyond those of the unit are this GPU's part only.

    ZeRO-2 makes room for its whole part `at_once`: that of the last GPU with the first gradient, which is the head's
    (copy_grads_in_partition in deepspeed/runtime/zero/stage_1_and_2.py).
    """
    per_token, per_pair, fixed = moment.by_part.get(Part.GRADIENTS, (0, 0, 0))
    whole = min(fixed, unit_bytes)
    kept = whole + round((fixed - whole) * share) + (at_once if fixed else 0)
    by_part = {**moment.by_part, Part.GRADIENTS: (per_token, per_pair, kept)}
    return moment._replace(fixed=moment.fixed - fixed + kept, by_part=by_part)


# ── what is alive beside a step's own tensors ───────────────────────────────────────────────────────────────────────


def _beside(stretch: Stretch, units: Units, model: ModelSpec, training: TrainingSpec) -> Sizes:
    sizes: Sizes = {}
    if gathered := _gathered_bytes(stretch, units, model, training):
        sizes[Part.GATHERED] = (0, 0, gathered)
    if is_fsdp(training.parallelism) and stretch.backward and stretch.unit == "layer" and stretch.above:
        if training.adapter is None and not flat_parameters(training):
            sizes[Part.BUCKETS] = (0, 0, units.layer)  # the input of the reduce-scatter of the layer above
        sizes |= _held_by_hooks(stretch, model, training)
    return sizes


def _gathered_bytes(stretch: Stretch, units: Units, model: ModelSpec, training: TrainingSpec) -> int:
    """Whole weights while this unit runs."""
    strategy = training.parallelism.strategy
    if strategy == "fsdp-grad-op" and flat_parameters(training) and training.defers_reduction:
        return units.whole  # FSDP1 keeps them under no_sync: _should_free_in_backward
    if strategy == "fsdp-grad-op":  # each layer is let go of when its backward is done
        below = model.num_hidden_layers - (stretch.above if stretch.backward else 0)
        return min(units.whole, units.embedding + units.head + below * units.layer)
    if strategy == "zero3":
        return _live_bytes(stretch, units, model, training)
    if strategy != "fsdp":
        return 0
    return (_flat_gathered if flat_parameters(training) else _gathered)(stretch, units, model)


def _gathered(stretch: Stretch, units: Units, model: ModelSpec) -> int:
    """FSDP2: parameters of the unit, and the buffer into which the next one is gathered.

    In the forward pass the buffer of the unit itself stays until the next needs it. The head's unit stays gathered
    from the end of the forward pass to the beginning of the backward pass; when tied, to its end.
    Source: FSDPParamGroup.wait_for_unshard and pre_backward in torch/distributed/fsdp/_fully_shard.
    """
    head = units.head if model.tie_word_embeddings else 0
    last = stretch.above == model.num_hidden_layers - 1
    if stretch.unit == "layer":
        return head + (units.layer if stretch.backward and last else 2 * units.layer)
    if stretch.unit == "head":
        return units.head + (units.layer if stretch.backward else units.head)
    return units.embedding + head


def _flat_gathered(stretch: Stretch, units: Units, model: ModelSpec) -> int:
    """FSDP1: the root, which has what is outside the layers, stays; BACKWARD_PRE fetches one layer ahead.

    Source: the strategies of _lazy_init and _prefetch_handle in torch/distributed/fsdp.
    """
    root = units.embedding + units.head
    ahead = stretch.backward and stretch.above < model.num_hidden_layers - 1
    return root + (units.layer * (2 if ahead else 1) if stretch.unit == "layer" else 0)


def _live_bytes(stretch: Stretch, units: Units, model: ModelSpec, training: TrainingSpec) -> int:
    """ZeRO-3 fetches ahead until so many elements are there, or one layer and a bucket, and then one parameter more.

    Each submodule prefetches at least one parameter, so the limit is reached; while it is not, even the head is fetched
    in one go. Source: fetch_sub_module in deepspeed/runtime/zero/partitioned_param_coordinator.py.
    """
    each = units.whole / num_parameters(model)
    limit = max(MAX_LIVE_NUMEL * each, units.layer + prefetch_numel(model, training.parallelism) * training.dtype.bytes)
    if stretch.unit == "head":
        return min(units.whole, max(round(limit), units.head))
    if stretch.unit == "embedding":
        following = float(units.embedding or units.head)
    else:
        matrix = max((w.numel for w in weights_of(model) if w.layers is not None), default=0)
        following = matrix * each if stretch.backward else units.head
    return min(units.whole, round(limit + following))


def _held_by_hooks(stretch: Stretch, model: ModelSpec, training: TrainingSpec) -> Sizes:
    """FSDP1 with frozen layers and reentrant checkpoints: inputs of the layers above, and their gradients, stay.

    A frozen unit learns of the end of its backward from a hook on its inputs, which are leaves of the recomputed
    graph; the hook's handle keeps the node that accumulates a leaf's gradient, and so leaf and gradient, until the
    whole backward is over. The gradient of the layer just above is there anyway.
    Source: _register_post_backward_reshard_only_hook in torch/distributed/fsdp/_runtime_utils.py. Seen in
    fms-acceleration: LoRA on two and four GPUs takes 60 × hidden size bytes a token more than on one, of 32 layers.
    """
    if not flat_parameters(training) or training.adapter is None:
        return {}
    if not training.gradient_checkpointing or not training.use_reentrant:
        return {}
    stream = model.hidden_size * training.dtype.bytes
    return {
        Part.CHECKPOINTS: (stretch.above * stream, 0, 0),
        Part.ACTIVATIONS: ((stretch.above - 1) * stream, 0, 0),
    }
