"""Keep 4-bit weights what they are: on some CPUs bitsandbytes rewrites them, on all it misreads odd sizes.

Two defects of bitsandbytes 0.50 on a CPU, both silent:

* The first forward pass in eval mode packs the weights of Linear4bit anew where the CPU has AVX512-BF16. From then on
  dequantize_4bit returns garbage, gradients no longer flow through the layer and absmax is rounded to bfloat16.
  A layer whose `support_avx512bf16_for_cpu` is False is left alone.
* dequantize_4bit is wrong where in_features is no multiple of the block size: its kernel begins a new block in
  every row, quantize_4bit does not.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from peftbench.base.errors import MeasureError


def keep_weights_as_they_are(model: nn.Module) -> None:
    """Switch off the packing of every 4-bit layer. Raises MeasureError for a layer that the CPU would misread."""
    for name, module in model.named_modules():
        if type(module).__name__ == "Linear4bit":
            refuse_odd_rows(name, module.in_features, module.weight.blocksize, module.weight.device.type)
            module.support_avx512bf16_for_cpu = False


def refuse_odd_rows(name: str, in_features: int, blocksize: int, device: str) -> None:
    """Raise MeasureError where the rows are no multiple of the block size, on a CPU."""
    if device == "cpu" and in_features % blocksize:
        raise MeasureError(
            f"{name} has {in_features} inputs, no multiple of its block size of {blocksize}: "
            "bitsandbytes misreads such 4-bit weights on a CPU.",
            "Choose a smaller blocksize, a model with other sizes, or a CUDA card.",
        )


def refuse_packed(layer: Any) -> None:
    """Raise MeasureError for a layer that was packed: its weights can no longer be read, nor merged into."""
    if getattr(layer.weight.quant_state, "packing_format_for_cpu", False):
        what = "4-bit weights were packed by a forward pass on this CPU: reading or merging them would give garbage."
        raise MeasureError(what, "Call keep_weights_as_they_are(model) before its first forward pass.")
