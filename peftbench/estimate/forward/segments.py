"""One stretch of a step on the tape: a decoder layer, the head or the embeddings, with what it leaves behind."""

from contextlib import suppress
from typing import NamedTuple

from peftbench.estimate.forward.generations import quantized_saves_input
from peftbench.estimate.forward.kernels import masks_sliding_layers, part_kernel
from peftbench.estimate.forward.layers import decoder_layer, embeddings
from peftbench.estimate.forward.loss import head_and_loss
from peftbench.estimate.forward.step import Step
from peftbench.estimate.peft_forward.lora import trains_tokens
from peftbench.estimate.peft_forward.virtual_tokens import encoder_copies_bytes, is_prompt, past_tokens
from peftbench.estimate.peft_types.tensors import adapted_paths
from peftbench.estimate.tape.autograd import FLOAT32, Node, Recomputed, Storage, Tape, Tensor
from peftbench.estimate.tape.ledger import Ledger, Moment, Sizes, add_sizes, nonzero
from peftbench.estimate.tape.modules import Context
from peftbench.estimate.tape.played import INPUT_KEY, NOTHING, Played, played_of
from peftbench.inputs.model.parts import Layer
from peftbench.memory import Part


class Segment(NamedTuple):
    """One layer, or the head: its moments and what it leaves behind, above its surroundings."""

    forward: tuple[Moment, ...]
    kept_in_forward: Sizes
    kept: Sizes
    backward: tuple[Moment, ...]
    left: Sizes
    """Alive after its backward: gradients of weights, outputs that the training loop still holds."""
    out_itemsize: int
    played: Played
    """Its blocks one by one."""
    loss: tuple[Moment, ...] = ()
    """In the head's backward: what comes before the gradient of the logits is there."""


class Kind(NamedTuple):
    """What tells layers apart: those of one kind need the same memory."""

    layer: Layer
    """With a window only where that asks for a mask."""
    needs_grad: bool = True
    """The layer's input needs a gradient."""
    itemsize: int = 2
    """The itemsize of the layer's input; autocast can widen the stream on the way."""
    carriers: frozenset[str] = frozenset()
    """Paths of the modules that carry the adapter."""


def run_kept(step: Step, kind: Kind) -> Segment:
    """A layer whose saved tensors stay until its backward."""
    ledger = Ledger()
    c = _context(step, ledger, kind)
    y = decoder_layer(c, _layer_input(c, kind, Part.ACTIVATIONS))
    out_itemsize = y.itemsize
    forward = ledger.take_moments()
    kept_in_forward = _without(ledger.by_part, y)
    ends = [len(ledger.events)]
    c.tape.kept.clear()
    if not (step.keeps_outputs and c.use_cache):
        c.cache.clear()  # dropped with the outputs, before backward
    ends.append(len(ledger.events))
    kept = _without(ledger.by_part, y)
    gradients = {y.key: Storage(ledger, Part.ACTIVATIONS, y.per_token)}
    output = y.storage.number if y.storage else NOTHING
    del y
    c.tape.backward(gradients)
    return _segment(ledger, gradients, forward, kept_in_forward, kept, ends, output, out_itemsize)


def run_checkpointed(step: Step, kind: Kind) -> Segment:
    """A layer that keeps its input only and is recomputed in backward.

    Reentrant: the whole layer runs again first, and its output stays for the backward of the part. Otherwise the
    operations at the layer's end that saved nothing play first; the first one that reads a saved tensor starts
    the recomputation, which stops at the last operation that saves one.
    Source: CheckpointFunction and _checkpoint_without_reentrant_generator in torch/utils/checkpoint.py.
    """
    ledger = Ledger()
    c = _context(step, ledger, kind)
    c.tape.drops = True
    x = _layer_input(c, kind, Part.CHECKPOINTS)
    y = decoder_layer(c, x)
    if step.training.use_reentrant:
        c.tape.attributes.clear()  # the part ran without a graph
    out_itemsize = y.itemsize
    forward = ledger.take_moments()
    kept_in_forward = _without(ledger.by_part, y)
    ends = [len(ledger.events)]
    c.tape.kept.clear()
    if not step.keeps_outputs:
        c.cache.clear()  # dropped with the outputs, before backward
    ends.append(len(ledger.events))
    held, attributes = c.cache, c.tape.attributes
    kept = _without(ledger.by_part, y)
    gradients = {y.key: Storage(ledger, Part.ACTIVATIONS, y.per_token)}
    output = y.storage.number if y.storage else NOTHING
    del y
    nodes = c.tape.nodes
    c = _context(step, ledger, kind)
    if not step.training.use_reentrant:
        _play_tail(c, nodes, gradients)
    recomputed = None
    x.key = c.tape.next_key()
    with suppress(Recomputed):
        recomputed = decoder_layer(c, x)
    c.cache = held
    c.tape.kept.clear()
    if not step.training.use_reentrant:
        c.tape.attributes = attributes  # the recomputed graph is gone, the one that is played is the first
    c.tape.backward(gradients)
    if step.training.use_reentrant:
        c.tape.attributes.clear()
    del recomputed
    del x  # the checkpoint holds the layer's input until its last saved tensor is read
    return _segment(ledger, gradients, forward, kept_in_forward, kept, ends, output, out_itemsize)


def _play_tail(c: Context, nodes: list[Node], gradients: dict[int, Storage]) -> None:
    """Play what comes before the first read of a saved tensor, and set where the recomputation may stop.

    `nodes` are the layer's, in order; both runs number their tensors alike.
    """
    tail = 0
    while not nodes[-1 - tail].unpacks:
        tail += 1
    c.tape.nodes = nodes[len(nodes) - tail :]
    c.tape.backward(gradients)
    c.tape.stop_at = len(nodes) - tail


def _layer_input(c: Context, kind: Kind, part: Part) -> Tensor:
    return c.tape.tensor(c.model.hidden_size, kind.itemsize, kind.needs_grad, part=part)


def _segment(
    ledger: Ledger, gradients: dict[int, Storage], forward: tuple[Moment, ...], kept_in_forward: Sizes, kept: Sizes,
    ends: list[int], output: int, out_itemsize: int = FLOAT32,
) -> Segment:  # fmt: skip
    of_input = gradients.get(INPUT_KEY)
    played = played_of(ledger, ends, output, of_input.number if of_input else NOTHING)
    del of_input
    gradients.clear()
    left = nonzero(ledger.by_part)
    return Segment(forward, kept_in_forward, kept, ledger.take_moments(), left, out_itemsize, played)


def _context(step: Step, ledger: Ledger, kind: Kind) -> Context:
    model, training = step.model, step.training
    kernel = part_kernel(kind.layer.attention, step.kernels.attention, training.attention)
    exist = training.gradients_outlive_step or bool(step.early_gradients)
    masked = kind.layer.slides and kernel in ("flash", "math")  # a mask has keys copied to every query head
    return Context(
        tape=Tape(ledger, step.autocast_itemsize, gradients_exist=exist, device=step.kernels.device),
        model=model, layer=kind.layer, training=training, targets=kind.carriers, quantization=step.quantization,
        attention_kernel="efficient" if masked else kernel, grouped_mm=step.kernels.grouped_mm,
        weight_itemsize=training.dtype.bytes, embedding_itemsize=step.embedding_itemsize,
        masked=kind.layer.slides or kernel == "eager" or _always_masked(step), past_tokens=past_tokens(training),
        quantized_saves_input=quantized_saves_input(training),
    )  # fmt: skip


def outside_context(step: Step, ledger: Ledger) -> Context:
    """The context of embeddings and head."""
    carriers = adapted_paths(step.model, step.training.adapter)
    return _context(step, ledger, Kind(step.model.layers[0].unmasked, carriers=carriers))


def _always_masked(step: Step) -> bool:
    """Whether every layer of SDPA gets a mask."""
    training = step.training
    padded = training.padded and training.attention == "sdpa"
    return padded or step.model.family.always_masked or past_tokens(training) > 0


# ── head and embeddings ─────────────────────────────────────────────────────────────────────────────────────────────


def run_head(step: Step, itemsize: int) -> Segment:
    """Final norm, lm_head and loss."""
    ledger = Ledger()
    c = outside_context(step, ledger)
    c.quantization = None  # bitsandbytes leaves lm_head alone
    loss, logits = head_and_loss(c, itemsize, step.embedding_itemsize)
    made = logits.key if logits else None
    if not step.keeps_outputs and step.autocast_itemsize and logits and logits.storage and logits.itemsize < FLOAT32:
        wide = FLOAT32 * logits.width
        returned = [Storage(ledger, Part.LOGITS, wide)]  # accelerate's convert_outputs_to_fp32
        if step.training.looks_for_unused:  # DDP's sink copies them once the 16-bit ones are gone
            logits = None
            returned.append(Storage(ledger, Part.LOGITS, wide))
        returned.clear()
    forward = ledger.take_moments()
    ends = [len(ledger.events)]
    nodes = c.tape.nodes
    in_head = next((number for number, node in enumerate(nodes, 1) if made in node.outputs), len(nodes))
    if not step.keeps_outputs:
        logits = None
    c.tape.kept.clear()
    ends.append(len(ledger.events))
    kept = dict(ledger.by_part)
    gradients = {loss.key: Storage(ledger, Part.LOGITS, 0)}
    c.tape.nodes, nodes = nodes[in_head:], nodes[:in_head]
    c.tape.backward(gradients)
    in_loss = ledger.take_moments()
    c.tape.nodes = nodes
    c.tape.backward(gradients)
    segment = _segment(ledger, gradients, forward, {}, kept, ends, NOTHING)._replace(loss=in_loss)
    del logits
    if step.full and step.model.tie_word_embeddings and step.training.gradients_outlive_step:
        waiting = {Part.GRADIENTS: (0, 0, table_bytes(step))}
        return segment._replace(left=add_sizes(segment.left, waiting))
    return segment


def _mask_bytes(step: Step, itemsize: int) -> int:
    """Bytes of the model's attention masks for a pair of tokens: boolean for SDPA, a number where they are added."""
    slide = [layer.slides for layer in step.model.layers if layer.attention]
    if not slide:
        return 0
    if step.model.alibi:
        return step.model.num_attention_heads * itemsize
    if step.kernels.attention == "eager":
        return itemsize * len(set(slide))
    return int(masks_sliding_layers(step.model, step.training) or _always_masked(step))


def table_bytes(step: Step) -> int:
    """Bytes of the embeddings, and so of their gradient."""
    return step.model.vocab_size * step.model.embedding_size * step.training.dtype.bytes


def embedding_kept(step: Step) -> Sizes:
    """What the embeddings leave beside the stream: a dropout mask, a leaf of the graph, a mask for attention."""
    ledger = Ledger()
    c = outside_context(step, ledger)
    stream = embeddings(c, step.embeddings_need_grad)
    mask = embedding_beside(step, stream.itemsize)
    if any(leaf is stream.storage for leaf in c.tape.kept):
        c.tape.kept.clear()
    if step.training.gradient_checkpointing and is_prompt(step.training.adapter):
        # The embeddings are a leaf, and the prompt's stream is a copy.
        return add_sizes(ledger.by_part, mask)
    return add_sizes(_without(ledger.by_part, stream), mask)


def embedding_beside(step: Step, itemsize: int) -> Sizes:
    """What all layers read: the mask, where one is made, and autocast's copies of a prompt encoder."""
    copies = encoder_copies_bytes(step.model, step.training.adapter, step.autocast_itemsize)
    return {Part.ACTIVATIONS: (0, _mask_bytes(step, itemsize), copies)}


def leaf_held(step: Step) -> Sizes:
    """What outputs hold whose embeddings are a leaf: enable_input_require_grads makes them one.

    The node that would add to the leaf's gradient keeps the leaf, and the gradient is added: two streams.
    """
    if step.full or not step.training.gradient_checkpointing:
        return {}
    stream = step.model.hidden_size * step.embedding_itemsize
    return {Part.CHECKPOINTS: (stream, 0, 0), Part.ACTIVATIONS: (stream, 0, 0)}


def embedding_held(step: Step) -> Sizes:
    """What the model's forward holds in variables until it returns: embeddings that are not the stream itself.

    Those of the positions count where every sequence has its own; those that GPT-2 has for one sequence are left out.
    """
    model = step.model
    if not model.learned_positions and not model.embedding_dropout:
        return {}
    leaf = step.embeddings_need_grad and not step.full  # the graph keeps it: see embedding_kept
    width = (0 if leaf else model.embedding_size) + model.hidden_size * model.family.positions_by_sequence
    held: Sizes = {Part.ACTIVATIONS: (width * step.embedding_itemsize, 0, 0)}
    return nonzero(held)


def views_tied_head(step: Step) -> bool:
    """Whether a tied head's gradient is a view, to which the table's is added out of place."""
    return step.full and step.model.tie_word_embeddings and step.training.loss not in ("liger", "chunked")


def embedding_backward(step: Step) -> tuple[Moment, ...]:
    """Full fine-tuning: the table's gradient, three sorted index lists, and partial sums in float32.

    When tied, the head's gradient waits for it and the two are added out of place, because the head's is a
    transposed view: three tables are alive. Liger's, and a sum over chunks, are no views and are added to in place.
    Sources: InputBuffer::add in pytorch/torch/csrc/autograd; embedding_dense_backward in
    pytorch/aten/src/ATen/native/cuda/Embedding.cu.
    """
    if not step.full and not trains_tokens(step.training.adapter):
        return ()
    table = table_bytes(step) * (2 if views_tied_head(step) else 1)
    stream = step.model.hidden_size * step.embedding_itemsize
    tenths, rows = (number * step.model.embedding_size * FLOAT32 for number in step.kernels.embedding_sums)
    per_token = 3 * 8 + tenths // 10
    sizes = {Part.GRADIENTS: (0, 0, table), Part.WORKSPACE: (per_token, 0, rows), Part.ACTIVATIONS: (stream, 0, 0)}
    return (Moment(stream + per_token, 0, table + rows, sizes),)


def _without(sizes: Sizes, tensor: Tensor) -> Sizes:
    return nonzero(add_sizes(sizes, {Part.ACTIVATIONS: (-tensor.per_token, 0, 0)}))
