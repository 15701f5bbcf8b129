"""HIGGS and BitNet, which transformers runs and does not train.

HIGGS: 2 to 4-bit codes of Hadamard-transformed weights, with a scale for each 256. BitNet: weights of -1, 0 and 1, four
in a byte, with one scale a matrix. Source: HiggsLinear and BitLinear in transformers 5.23 `integrations/higgs.py` and
`bitnet.py`, and their quantizers, of which BitNetHfQuantizer trains whole 16-bit weights of AutoBitLinear only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftbench.inputs.schemes.scheme import Scheme
from peftbench.inputs.schemes.written_out import HALF_BYTES, written_out

if TYPE_CHECKING:
    from peftbench.inputs.recipe import QuantizationSpec

GROUP = 256


def constants_bytes(out_features: int, in_features: int, quantization: QuantizationSpec) -> int:
    """A 16-bit scale for each group of inputs of each output, and tables of all codes and of all pairs of codes."""
    codes: int = 2 ** (quantization.bits or 4)
    return HALF_BYTES * (out_features * -(-in_features // GROUP) + codes + 2 * codes**2)


SCHEMES = {
    "higgs": Scheme(
        library="HIGGS",
        bits=4,
        bits_choices=(2, 3, 4),
        constants_bytes=constants_bytes,
        constants=lambda quantization: f"a 16-bit scale for each {GROUP} weights, tables of each layer",
        forward=written_out(),
        written_itemsize=lambda quantization: 0,
        options=("bits",),
        untrainable="transformers does not train on HIGGS weights (HiggsHfQuantizer.is_trainable)",
        reaches_subclasses=True,
        step_doubt="no steps with HIGGS weights published",
        unshardable="transformers does not train on HIGGS weights",
    ),
    "bitnet": Scheme(
        library="BitNet",
        bits=2,
        constants_bytes=lambda out_features, in_features, quantization: HALF_BYTES,
        constants=lambda quantization: "a 16-bit scale for each matrix",
        forward=written_out(),
        written_itemsize=lambda quantization: HALF_BYTES,
        checkpoint=True,
        untrainable="transformers does not train on packed BitNet weights (BitNetHfQuantizer.is_trainable)",
        reaches_subclasses=True,
        step_doubt="no steps with BitNet weights published",
        unshardable="transformers does not train on packed BitNet weights",
    ),
}
