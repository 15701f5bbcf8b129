"""What the caching allocator reserves beyond what tensors need, and the CUDA context below both."""

from peftbench.estimate.parts.card import CardTraits
from peftbench.inputs.card.cuda_context import context_band, context_bytes
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.memory import Basis, Component, Part, Phase, exact

REPLAYED = "freed blocks that no later tensor fits: two steps, replayed through a simulated allocator"


def slack(
    size: int, less: int, more: int, phases: frozenset[Phase], card: CardTraits, because: str = REPLAYED
) -> Component:  # fmt: skip
    """Reserved minus allocated at the peak, perhaps so much less or more; torch's allocator on a CPU keeps nothing."""
    if card.on_cpu:
        return exact(Part.SLACK, 0, phases, "there is no caching allocator on a CPU")
    low, high = max(size - less, 0), size + more
    seen = card.slack_factor
    if seen is None:
        return Component(Part.SLACK, size, Basis.MODELLED, phases, because, low, high)
    highest = round(size * seen.high)
    band = (round(size * seen.low), highest) if seen.has_range else (low, max(high, highest))
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
