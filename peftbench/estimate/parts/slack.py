"""What the caching allocator reserves beyond what tensors need, and the CUDA context below both."""

from typing import NamedTuple

from peftbench.estimate.parts.card import CardTraits
from peftbench.inputs.card.cuda_context import context_band, context_bytes
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.memory import Basis, Component, Part, Phase, exact


class Shares(NamedTuple):
    """Slack as a share of what comes and goes in a step, plus so many blocks of float32 logits."""

    of_dynamic: float
    of_logits_block: float


EXPECTED = Shares(0.12, 0.0)
HIGH = Shares(0.2, 1.0)
"""Freed blocks that later tensors did not fit.

Seen in published pairs of reserved or device memory and allocated memory: 0.09 to 0.17 of the dynamic bytes where
logits are not large (fms-acceleration with Liger, PEFT's method comparison).
"""

EXPECTED_CHECKPOINTED = Shares(0.12, 1.0)
HIGH_CHECKPOINTED = Shares(0.2, 2.9)
"""With checkpointing the layers' small tensors are carved out of the freed blocks of the logits, which cannot be put
together again before the next loss: one to three more blocks are reserved. A block is tokens × vocabulary × 4 B.

Seen in fms-acceleration (transformers 4.4x): 1.25 to 1.75 blocks beyond the share above with the unfused loss, 2 to
2.75 with a fused kernel. The step of transformers 5, replayed through a simulator of the allocator: 0.65 to 0.85.
"""


def slack(
    dynamic_bytes: int, logits_block_bytes: int, checkpointing: bool, phases: frozenset[Phase], card: CardTraits
) -> Component:
    """Reserved minus allocated at the peak; torch's allocator on a CPU keeps nothing back.

    `dynamic_bytes` come and go within a step, logits left out; `logits_block_bytes` is one float32 copy of the
    logits, 0 where they are never stored.
    """
    if card.on_cpu:
        return exact(Part.SLACK, 0, phases, "there is no caching allocator on a CPU")
    expected = EXPECTED_CHECKPOINTED if checkpointing else EXPECTED
    high = HIGH_CHECKPOINTED if checkpointing else HIGH
    size, most = (
        round(dynamic_bytes * share.of_dynamic + logits_block_bytes * share.of_logits_block)
        for share in (expected, high)
    )
    because = "freed blocks that no later tensor fits: a share of what comes and goes, and broken blocks of logits"
    seen = card.slack_factor
    if seen is None:
        return Component(Part.SLACK, size, Basis.MODELLED, phases, because, 0, most)
    highest = round(size * seen.high)
    band = (round(size * seen.low), highest) if seen.has_range else (0, max(most, highest))
    because += "; as measured on this card"
    return Component(Part.SLACK, round(size * seen.value), Basis.MODELLED, phases, because, *band)


def context(gpu: GpuSpec | None, phases: frozenset[Phase]) -> Component:
    """The CUDA context of the process; a CPU has none."""
    if gpu is not None and gpu.is_cpu:
        return exact(Part.CONTEXT, 0, phases, "a CPU has no context")
    multiprocessors, capability = (gpu.multiprocessors, gpu.compute_capability) if gpu else (None, None)
    low, high = context_band(multiprocessors, capability)
    size = gpu.context_bytes if gpu and gpu.context_bytes else context_bytes(multiprocessors, capability)
    seen = gpu.calibration.context_bytes if gpu and gpu.calibration else None
    if seen is not None:
        band = (round(seen.low), round(seen.high))
        if not seen.has_range:
            band = (min(low, band[0]), max(high, band[1]))
        return Component(Part.CONTEXT, round(seen.value), Basis.MODELLED, phases, "measured on this card", *band)
    because = f"{multiprocessors or 'an unknown number of'} multiprocessors, and PyTorch's kernels"
    return Component(Part.CONTEXT, size, Basis.ASSUMED, phases, because, min(low, size), max(high, size))
