"""Say what each recorded block held, in the parts of the estimate, from when and where it was made."""

from __future__ import annotations

from peftbench.dryrun.trace.recorder import RecordedBlock
from peftbench.dryrun.trace.trace import Block
from peftbench.memory import Part, Phase

DEQUANTIZERS = ("bitsandbytes::dequantize_4bit", "bitsandbytes::dequantize_blockwise")


def classify(block: RecordedBlock, head: str, vocab_size: int) -> Block:
    """`head` is the name of the module that makes the logits; the model itself, which has the loss, is ""."""
    return Block(
        bytes=block.bytes,
        part=block.part or _part(block, head, vocab_size),
        module=block.module,
        operation=block.operation,
        shape=",".join(map(str, block.shape)),
        dtype=str(block.dtype).removeprefix("torch.") if block.dtype else "",
    )


def _part(block: RecordedBlock, head: str, vocab_size: int) -> Part:
    if block.phase is Phase.STEP:
        return Part.OPTIMIZER_TEMPORARIES
    if block.phase is Phase.LOAD:
        return Part.WORKSPACE
    if block.operation in DEQUANTIZERS:
        return Part.DEQUANTIZATION
    logits = block.module in ("", head) or (len(block.shape) > 1 and block.shape[-1] == vocab_size)
    return Part.LOGITS if logits else Part.ACTIVATIONS
