"""The blocks of the embeddings, the first stretch of a step and the last of its backward."""

from peftbench.estimate.forward.layers import embeddings
from peftbench.estimate.forward.segments import (
    embedding_beside,
    embedding_held,
    outside_context,
    table_bytes,
    views_tied_head,
)
from peftbench.estimate.forward.step import Step
from peftbench.estimate.peft_forward.lora import trains_tokens
from peftbench.estimate.tape.autograd import FLOAT32, Storage
from peftbench.estimate.tape.ledger import Ledger, Sizes
from peftbench.estimate.tape.played import NOTHING, Played, played_of
from peftbench.memory import Part


def play_embeddings(step: Step) -> Played:
    """Run the embeddings, and their backward where the table is trained."""
    ledger = Ledger()
    c = outside_context(step, ledger)
    stream = embeddings(c, step.embeddings_need_grad)
    assert stream.storage is not None
    beside = _storages(ledger, embedding_beside(step, stream.itemsize))
    held = _storages(ledger, embedding_held(step))
    ends = [len(ledger.events)]
    held.clear()
    ends.append(len(ledger.events))
    output, incoming = stream.storage.number, Storage(ledger, Part.ACTIVATIONS, stream.per_token)
    del stream
    stays = _play_table(step, ledger) if step.full or trains_tokens(step.training.adapter) else []
    c.tape.nodes.clear()
    del incoming
    c.tape.kept.clear()
    beside.clear()
    played = played_of(ledger, ends, output, NOTHING)
    stays.clear()
    return played


def _storages(ledger: Ledger, sizes: Sizes) -> list[Storage]:
    return [Storage(ledger, part, per_token, fixed, per_pair) for part, (per_token, per_pair, fixed) in sizes.items()]


def _play_table(step: Step, ledger: Ledger) -> list[Storage]:
    """The table's gradient, with what is alive while it is made; returned is what stays.

    A tied head's is there already, and is added to; of trained tokens only their rows are kept. See embedding_backward.
    """
    stays = step.full and not step.model.tie_word_embeddings
    made = [Storage(ledger, Part.GRADIENTS if stays else Part.WORKSPACE, 0, table_bytes(step))]
    tenths, rows = (number * step.model.embedding_size * FLOAT32 for number in step.kernels.embedding_sums)
    sums = [Storage(ledger, Part.WORKSPACE, 8) for _ in range(3)]
    sums.append(Storage(ledger, Part.WORKSPACE, tenths // 10, rows))
    sums.clear()
    if stays:
        return made
    if views_tied_head(step):
        made.append(Storage(ledger, Part.WORKSPACE, 0, table_bytes(step)))
    return []
