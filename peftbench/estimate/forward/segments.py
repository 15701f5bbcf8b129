"""One stretch of a step on the tape: a decoder layer, the head or the embeddings, with what it leaves behind."""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

from peftbench.estimate.forward.layers import decoder_layer, embeddings
from peftbench.estimate.forward.loss import head_and_loss
from peftbench.estimate.peft_forward.virtual_tokens import encoder_copies_bytes, is_prompt, virtual_tokens
from peftbench.estimate.tape.autograd import FLOAT32, Node, Recomputed, Storage, Tape, Tensor
from peftbench.estimate.tape.ledger import Ledger, Moment, Sizes, add_sizes, nonzero
from peftbench.estimate.tape.modules import Context
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.recipe.adapter import AdapterSpec
from peftbench.inputs.recipe.quantization import QuantizationSpec
from peftbench.memory import Part


class StepKey(NamedTuple):
    """What decides the moments of a step, apart from the number of tokens."""

    model: ModelSpec
    weight_itemsize: int
    norm_itemsize: int
    autocast_itemsize: int | None
    full: bool
    norms_trainable: bool
    adapter: AdapterSpec | None
    targets: frozenset[str]
    quantization: QuantizationSpec | None
    attention_kernel: str
    fused_kernels: str
    checkpointing: bool
    reentrant: bool
    use_cache: bool
    keeps_outputs: bool
    gradients_exist: bool
    loss: str
    loss_tokens: int
    """Tokens, where the loss is not linear in them; else 0."""
    embeddings_need_grad: bool
    masks_sliding_layers: bool
    several_sequences: bool
    """Where that matters: eager attention copies strided heads of a batch, and older losses shift the logits."""
    repeats_keys: bool
    keeps_fused_cache: bool
    quantized_saves_input: bool = False
    past_tokens: int = 0
    """Keys of a prefix in the micro-batch."""
    grouped_mm: bool = True
    padded: bool = False
    """Every layer of SDPA gets a mask."""
    early_gradients: int = 0
    """Bytes of gradients that exist before the head's backward: AdaLoRA regularizes its matrices in the loss."""


class Segment(NamedTuple):
    """One layer, or the head: its moments and what it leaves behind, above its surroundings."""

    forward: tuple[Moment, ...]
    kept_in_forward: Sizes
    kept: Sizes
    backward: tuple[Moment, ...]
    left: Sizes
    """Alive after its backward: gradients of weights, outputs that the training loop still holds."""
    out_itemsize: int


class Kind(NamedTuple):
    """What tells layers apart: those of one kind need the same memory."""

    rotates: bool = True
    sliding: bool = False
    dense_mlp: bool = False
    needs_grad: bool = True
    """The layer's input needs a gradient."""
    itemsize: int = 2
    """Of the layer's input; autocast can widen the stream on the way."""


def run_kept(key: StepKey, kind: Kind) -> Segment:
    """A layer whose saved tensors stay until its backward."""
    ledger = Ledger()
    c = _context(key, ledger, kind)
    y = decoder_layer(c, _layer_input(c, kind, Part.ACTIVATIONS), kind.dense_mlp)
    out_itemsize = y.itemsize
    forward = ledger.take_moments()
    kept_in_forward = _without(ledger.by_part, y)
    c.tape.kept.clear()
    if not (key.keeps_outputs and key.use_cache):
        c.cache.clear()  # dropped with the outputs, before backward
    kept = _without(ledger.by_part, y)
    gradients = {y.key: Storage(ledger, Part.ACTIVATIONS, y.per_token)}
    del y
    c.tape.backward(gradients)
    return _segment(ledger, gradients, forward, kept_in_forward, kept, out_itemsize)


def run_checkpointed(key: StepKey, kind: Kind) -> Segment:
    """A layer that keeps its input only and is recomputed in backward.

    Reentrant: the whole layer runs again first, and its output stays for the backward of the part. Otherwise the
    operations at the layer's end that saved nothing play first; the first one that reads a saved tensor starts
    the recomputation, which stops at the last operation that saves one.
    Source: CheckpointFunction and _checkpoint_without_reentrant_generator in torch/utils/checkpoint.py.
    """
    ledger = Ledger()
    c = _context(key, ledger, kind)
    c.tape.drops = True
    x = _layer_input(c, kind, Part.CHECKPOINTS)
    y = decoder_layer(c, x, kind.dense_mlp)
    if key.reentrant:
        c.tape.attributes.clear()  # the part ran without a graph
    out_itemsize = y.itemsize
    forward = ledger.take_moments()
    kept_in_forward = _without(ledger.by_part, y)
    c.tape.kept.clear()
    if not key.keeps_outputs:
        c.cache.clear()  # dropped with the outputs, before backward
    held, attributes = c.cache, c.tape.attributes
    kept = _without(ledger.by_part, y)
    gradients = {y.key: Storage(ledger, Part.ACTIVATIONS, y.per_token)}
    del y
    nodes = c.tape.nodes
    c = _context(key, ledger, kind)
    if not key.reentrant:
        _play_tail(c, nodes, gradients)
    recomputed = None
    x.key = c.tape.next_key()
    with suppress(Recomputed):
        recomputed = decoder_layer(c, x, kind.dense_mlp)
    c.cache = held
    c.tape.kept.clear()
    if not key.reentrant:
        c.tape.attributes = attributes  # the recomputed graph is gone, the one that is played is the first
    c.tape.backward(gradients)
    if key.reentrant:
        c.tape.attributes.clear()
    del recomputed
    del x  # the checkpoint holds the layer's input until its last saved tensor is read
    return _segment(ledger, gradients, forward, kept_in_forward, kept, out_itemsize)


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
    ledger: Ledger,
    gradients: dict[int, Storage],
    forward: tuple[Moment, ...],
    kept_in_forward: Sizes,
    kept: Sizes,
    out_itemsize: int = FLOAT32,
) -> Segment:
    gradients.clear()
    left = nonzero(ledger.by_part)
    return Segment(forward, kept_in_forward, kept, ledger.take_moments(), left, out_itemsize)


def _context(key: StepKey, ledger: Ledger, kind: Kind | None = None) -> Context:
    rotates, sliding = (kind.rotates, kind.sliding) if kind else (True, False)
    tape = Tape(ledger, key.autocast_itemsize, gradients_exist=key.gradients_exist or bool(key.early_gradients))
    masked = sliding and key.attention_kernel in ("flash", "math")  # a mask has keys copied to every query head
    kernel = "efficient" if masked else key.attention_kernel
    return Context(
        tape=tape, model=key.model, weight_itemsize=key.weight_itemsize, norm_itemsize=key.norm_itemsize,
        full=key.full, norms_trainable=key.norms_trainable, adapter=key.adapter, targets=key.targets,
        quantization=key.quantization, attention_kernel=kernel,
        fused_kernels=key.fused_kernels, use_cache=key.use_cache, rotates=rotates, sliding=sliding,
        several_sequences=key.several_sequences, repeats_keys=key.repeats_keys, keeps_fused_cache=key.keeps_fused_cache,
        quantized_saves_input=key.quantized_saves_input, grouped_mm=key.grouped_mm,
        masked=sliding or key.attention_kernel == "eager" or _always_masked(key),
        past_tokens=key.past_tokens, virtual_tokens=virtual_tokens(key.adapter) if key.past_tokens else 0,
        rope_itemsize=embedding_itemsize(key),
    )  # fmt: skip


def _always_masked(key: StepKey) -> bool:
    """Whether every layer of SDPA gets a mask."""
    return key.padded or key.model.model_type == "falcon" or key.past_tokens > 0


def embedding_itemsize(key: StepKey) -> int:
    """The stream between layers starts as the embedding and has its type."""
    upcast = key.quantization is not None and key.quantization.upcast_unquantized
    return FLOAT32 if upcast else key.weight_itemsize


# ── head and embeddings ─────────────────────────────────────────────────────────────────────────────────────────────


def run_head(key: StepKey, itemsize: int) -> Segment:
    """Final norm, lm_head and loss."""
    ledger = Ledger()
    c = _context(key, ledger)
    c.quantization = None  # bitsandbytes leaves lm_head alone
    upcast = key.quantization is not None and key.quantization.upcast_unquantized
    loss, logits = head_and_loss(c, itemsize, key.loss, key.loss_tokens, upcast)
    if not key.keeps_outputs and key.autocast_itemsize and logits and logits.storage and logits.itemsize < FLOAT32:
        c.tape.scratch(Part.LOGITS, FLOAT32 * logits.width, 0)  # accelerate's convert_outputs_to_fp32
    forward = ledger.take_moments()
    if not key.keeps_outputs:
        logits = None
    c.tape.kept.clear()
    kept = dict(ledger.by_part)
    gradients = {loss.key: Storage(ledger, Part.LOGITS, 0)}
    c.tape.backward(gradients)
    segment = _segment(ledger, gradients, forward, {}, kept)
    del logits
    if key.full and key.model.tie_word_embeddings and key.gradients_exist:
        waiting = {Part.GRADIENTS: (0, 0, _table_bytes(key))}
        return segment._replace(left=add_sizes(segment.left, waiting))
    return segment


def _mask_bytes(key: StepKey, itemsize: int) -> int:
    """Bytes of the model's attention mask for a pair of tokens: boolean for SDPA, a number where it is added."""
    if key.model.alibi:
        return key.model.num_attention_heads * itemsize
    if key.attention_kernel == "eager":
        both = 0 < len(key.model.sliding_layers) < key.model.num_hidden_layers
        return 2 * itemsize if both else itemsize
    return int(key.masks_sliding_layers or _always_masked(key))


def _table_bytes(key: StepKey) -> int:
    return key.model.vocab_size * key.model.embedding_size * key.weight_itemsize


def embedding_kept(key: StepKey) -> Sizes:
    """What the embeddings leave beside the stream: a dropout mask, a leaf of the graph, a mask for attention."""
    ledger = Ledger()
    c = _context(key, ledger)
    stream = embeddings(c, key.embeddings_need_grad)
    copies = encoder_copies_bytes(key.model, key.adapter, key.autocast_itemsize)
    mask = {Part.ACTIVATIONS: (0, _mask_bytes(key, stream.itemsize), copies)}
    if any(leaf is stream.storage for leaf in c.tape.kept):
        c.tape.kept.clear()
    if key.checkpointing and is_prompt(key.adapter):  # the embeddings are a leaf, and the prompt's stream a copy
        return add_sizes(ledger.by_part, mask)
    return add_sizes(_without(ledger.by_part, stream), mask)


def leaf_held(key: StepKey) -> Sizes:
    """What outputs hold whose embeddings are a leaf: enable_input_require_grads makes them one.

    The node that would add to the leaf's gradient keeps the leaf, and the gradient is added: two streams.
    """
    if key.full or not key.checkpointing:
        return {}
    stream = key.model.hidden_size * embedding_itemsize(key)
    return {Part.CHECKPOINTS: (stream, 0, 0), Part.ACTIVATIONS: (stream, 0, 0)}


def embedding_held(key: StepKey) -> Sizes:
    """What the model's forward holds in variables until it returns: embeddings that are not the stream itself.

    OPT has those of the positions for every sequence; those that GPT-2 has for one sequence are left out.
    """
    model = key.model
    if not model.learned_positions and not model.embedding_dropout:
        return {}
    leaf = key.embeddings_need_grad and not key.full  # the graph keeps it: see embedding_kept
    width = (0 if leaf else model.embedding_size) + (model.hidden_size if model.model_type == "opt" else 0)
    held: Sizes = {Part.ACTIVATIONS: (width * embedding_itemsize(key), 0, 0)}
    return nonzero(held)


def embedding_backward(key: StepKey) -> tuple[Moment, ...]:
    """Full fine-tuning: the table's gradient and three sorted index lists.

    When tied, the head's gradient waits for it and the two are added out of place, because the head's is a
    transposed view: three tables are alive. Sources: InputBuffer::add in pytorch/torch/csrc/autograd;
    embedding_dense_backward in pytorch/aten/src/ATen/native/cuda/Embedding.cu.
    """
    if not key.full:
        return ()
    table = _table_bytes(key) * (2 if key.model.tie_word_embeddings else 1)
    stream = key.model.hidden_size * embedding_itemsize(key)
    sizes = {Part.GRADIENTS: (0, 0, table), Part.WORKSPACE: (3 * 8, 0, 0), Part.ACTIVATIONS: (stream, 0, 0)}
    return (Moment(stream + 3 * 8, 0, table, sizes),)


def _without(sizes: Sizes, tensor: Tensor) -> Sizes:
    return nonzero(add_sizes(sizes, {Part.ACTIVATIONS: (-tensor.per_token, 0, 0)}))
