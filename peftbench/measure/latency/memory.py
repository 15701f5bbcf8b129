"""What a model's tensors take, and what one prefill with its decoding takes beyond them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from peftbench.measure.child.meter import CpuMeter, CudaMeter, Meter
from peftbench.measure.latency.rounds import Request, run_once
from peftbench.memory import Phase
from peftbench.records.run import PhasePeak


def weights_bytes(model: Any) -> int:
    """Bytes of every storage that the model reaches, each once: parameters, buffers, quantization constants."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage() for tensor in tensors_of(model)}
    return sum(storage.nbytes() for storage in storages.values())


def tensors_of(model: Any) -> Iterator[torch.Tensor]:
    """All, those of the quantization included: absmax and codes of 4-bit weights, the scales of 8-bit ones."""
    for module in model.modules():
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            yield tensor
            yield from _inside(getattr(tensor, "quant_state", None))
            yield from _inside({name: getattr(tensor, name, None) for name in ("CB", "SCB")})
        yield from _inside(getattr(module, "state", None))


def _inside(holder: Any) -> Iterator[torch.Tensor]:
    """Tensors among the attributes of a QuantState, the state nested in it included, or of a MatmulLtState."""
    values = holder.values() if isinstance(holder, dict) else vars(holder).values() if holder is not None else ()
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif type(value).__name__ == "QuantState":
            yield from _inside(value)


def peak_bytes(model: Any, request: Request) -> int:
    """Most bytes allocated at once in a prefill and its decoding, beyond what was allocated before; not a timed run."""
    seen: list[PhasePeak] = []
    meter: Meter = CudaMeter(seen.append) if request.on_card else CpuMeter(seen.append)
    meter.mark(Phase.PREFILL, 0)
    run_once(model, request, lambda: None)
    meter.finish()
    return seen[0].allocated_bytes - (seen[0].held_bytes or 0)
