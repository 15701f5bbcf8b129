"""The moments of one training step: runs each kind of layer once on the tape and strings the results together.

A model of 80 equal layers needs one run: before layer i's backward the layers below it hold what they kept, the
layers above it have left their gradients, and the layer itself goes through its own moments. Between equal layers
the sum is linear in i, so the peak is at the first or the last layer of a kind; FSDP2 fetches something else beside the
first and the last layer of all, so those next to them count too.
"""

from collections import Counter
from functools import lru_cache
from typing import NamedTuple

from peftbench.estimate.forward.embedding import play_embeddings
from peftbench.estimate.forward.kernels import masks_sliding_layers
from peftbench.estimate.forward.segments import (
    Kind,
    Segment,
    embedding_backward,
    embedding_held,
    embedding_kept,
    leaf_held,
    run_checkpointed,
    run_head,
    run_kept,
    table_bytes,
)
from peftbench.estimate.forward.step import Step
from peftbench.estimate.peft_types.tensors import adapted_by_layer
from peftbench.estimate.tape.ledger import Moment, Sizes, add_sizes, largest_moments, shift
from peftbench.estimate.tape.played import Played
from peftbench.memory import Part


class Stretch(NamedTuple):
    """The moments in which one unit of the model runs."""

    unit: str
    """ "layer", "head", "embedding", or "loss", which is the head's backward down to the logits."""
    backward: bool
    above: int
    """Layers whose backward is done."""
    moments: tuple[Moment, ...]
    reduced: int = 0
    """Bytes of whole gradients of the units whose backward is done."""


class StepMoments(NamedTuple):
    """Every moment of a step that can be its peak, above weights and optimizer states."""

    forward: tuple[Moment, ...]
    backward: tuple[Moment, ...]
    outputs: Sizes
    """What a plain loop keeps from one step to the next."""
    stretches: tuple[Stretch, ...] = ()
    """The same moments by the unit that runs: what several GPUs gather and keep depends on it."""
    written: tuple[tuple[int, int, int], ...] = ()
    """Tensors that the kernels of layers and head write: (bytes a token, bytes a pair of a token and a key, times)."""
    played: tuple[Played, ...] = ()
    """The blocks of embeddings, every layer and head."""
    between: tuple[Stretch, ...] = ()
    """What FSDP2 adds: layers next to the first and the last one, and what is alive where it gathers ("gather") or
    reduces ("reduce") its largest units, and no unit runs."""


@lru_cache(maxsize=2048)
def step_moments(step: Step) -> StepMoments:
    """String together embeddings, layers and head."""
    kinds, segments, itemsize = _layers(step)
    head = run_head(step, itemsize)
    in_layers: list[Moment] = []
    before = embedding_kept(step)
    before_forward, held = before, embedding_held(step)
    below: list[Sizes] = []
    for index, kind in enumerate(kinds):
        below.append(before)
        segment = segments[kind]
        if index + 1 == len(kinds) or kinds[index + 1] != kind:
            in_layers += shift(segment.forward, add_sizes(before_forward, held))
        before_forward = add_sizes(before_forward, segment.kept_in_forward)
        before = add_sizes(before, segment.kept)
    early: Sizes = {Part.GRADIENTS: (0, 0, step.early_gradients)} if step.early_gradients else {}
    stretches = [
        Stretch("layer", False, 0, largest_moments(in_layers)),
        Stretch("head", False, 0, tuple(shift(head.forward, before_forward))),
        Stretch("loss", True, 0, tuple(shift(head.loss, add_sizes(before, early)))),
        Stretch("head", True, 0, tuple(shift(head.backward, add_sizes(before, early)))),
    ]
    above = add_sizes(head.left, early)
    stream: Sizes = {Part.ACTIVATIONS: (step.model.hidden_size * itemsize, 0, 0)}
    between = [
        _between("gather", False, 0, embedding_kept(step), embedding_held(step)),
        _between("reduce", True, 0, add_sizes(before, above), stream),
    ]
    for index in range(len(kinds) - 1, -1, -1):
        kind = kinds[index]
        ends = index in (0, len(kinds) - 1) or kinds[index - 1] != kind or kinds[index + 1] != kind
        if ends or index in (1, len(kinds) - 2):
            moments = shift(segments[kind].backward, add_sizes(below[index], above))
            stretch = Stretch("layer", True, len(kinds) - 1 - index, tuple(moments), _gradients(above))
            (stretches if ends else between).append(stretch)
        above = add_sizes(above, segments[kind].left)
    moments = shift(embedding_backward(step), above)
    stretches.append(Stretch("embedding", True, len(kinds), tuple(moments), _gradients(above)))
    between += [_between("gather", False, len(kinds), before_forward, stream), _table_reduced(step, len(kinds), above)]
    outputs: Sizes = {part: size for part, size in above.items() if part is not Part.GRADIENTS}
    outputs = add_sizes(outputs, leaf_held(step))
    forward, backward = (
        largest_moments(moment for stretch in stretches if stretch.backward is back for moment in stretch.moments)
        for back in (False, True)
    )
    played = (play_embeddings(step), *(segments[kind].played for kind in kinds), head.played)
    return StepMoments(forward, backward, outputs, tuple(stretches), _written(played[1:]), played, tuple(between))


def _written(played: tuple[Played, ...]) -> tuple[tuple[int, int, int], ...]:
    """Those of equal layers are counted once, and as often as there are such layers."""
    total: Counter[tuple[int, int]] = Counter()
    by_id = {id(each): each for each in played}
    for ident, times in Counter(map(id, played)).items():
        for size, count in Counter((block[0], block[1]) for block in by_id[ident].blocks).items():
            total[size] += times * count
    return tuple((*size, times) for size, times in total.items() if any(size))


def _gradients(sizes: Sizes) -> int:
    return sizes.get(Part.GRADIENTS, (0, 0, 0))[2]


def _between(unit: str, backward: bool, above: int, alive: Sizes, stream: Sizes, reduced: int = 0) -> Stretch:
    moment = Moment(0, 0, 0, {})
    return Stretch(unit, backward, above, tuple(shift([moment], add_sizes(alive, stream))), reduced)


def _table_reduced(step: Step, layers: int, above: Sizes) -> Stretch:
    """The end of the backward pass: the gradient of the embeddings is whole, and that of a tied head added to it."""
    untied = step.full and not step.model.tie_word_embeddings and not step.training.gradients_outlive_step
    table: Sizes = {Part.GRADIENTS: (0, 0, table_bytes(step))} if untied else {}
    return _between("reduce", True, layers, above, table, _gradients(above))


def _layers(step: Step) -> tuple[list[Kind], dict[Kind, Segment], int]:
    """Run each kind of layer once, in order; returns the kinds by layer and the itemsize that reaches the head."""
    model, masks = step.model, masks_sliding_layers(step.model, step.training)
    run = run_checkpointed if step.training.gradient_checkpointing else run_kept
    kinds: list[Kind] = []
    segments: dict[Kind, Segment] = {}
    itemsize, carriers = step.embedding_itemsize, adapted_by_layer(model, step.training.adapter)
    first = next((layer for layer, paths in enumerate(carriers) if paths), 0)
    for number, layer in enumerate(model.layers):
        needs_grad = number > first or step.embeddings_need_grad
        kind = Kind(layer if masks else layer.unmasked, needs_grad, itemsize, carriers[number])
        if kind not in segments:
            segments[kind] = run(step, kind)
        kinds.append(kind)
        itemsize = segments[kind].out_itemsize
    return kinds, segments, itemsize
