"""EETQ: int8 weights that a CUTLASS kernel multiplies, with a scale for each output.

Source: transformers 5.23 `integrations/eetq.py` (EetqLinear, EetqLinearMMFunction) and PEFT 0.21 `tuners/lora/eetq.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftbench.inputs.schemes.scheme import Scheme
from peftbench.memory import Part

if TYPE_CHECKING:
    from peftbench.estimate.tape.autograd import Tensor
    from peftbench.estimate.tape.modules import Context

HALF_BYTES = 2
FLOAT32_BYTES = 4


def linear(c: Context, x: Tensor, out_features: int) -> Tensor:
    """Saves x. Backward gets the weight as a product with an identity, which is made in float32 and cast."""
    tape = c.tape
    low = tape.cast(x, HALF_BYTES)
    out = tape.tensor(out_features, HALF_BYTES, x.needs_grad)
    if x.needs_grad:
        identity = x.width**2
        written = HALF_BYTES * (identity + x.width * out_features)
        scratch = max((FLOAT32_BYTES + HALF_BYTES) * identity, written)
        tape.record((out,), (low,), (low,), scratch=((Part.DEQUANTIZATION, 0, scratch),))
    return tape.cast(out, x.itemsize)


SCHEMES = {
    "eetq": Scheme(
        library="EETQ",
        bits=8,
        constants_bytes=lambda out_features, in_features, quantization: HALF_BYTES * out_features,
        constants=lambda quantization: "a float16 scale for each output",
        forward=linear,
        written_itemsize=lambda quantization: 0,
        reaches_subclasses=True,
        adapters=("lora",),
        lora_leaves_input=True,
        step_doubt="no steps with EETQ weights published",
        unshardable="no sharded run of EETQ's int8 parameters is modelled",
    )
}
