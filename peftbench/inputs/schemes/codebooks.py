"""AQLM and VPTQ: codes that stand for vectors of eight weights, looked up in books that each layer has of its own.

Source: QuantizedLinear of aqlm 1.1.7 and its kernels code1x16_matmat_dequant and code2x8_matmat_dequant; VQuantLinear
of vptq 0.0.5; PEFT 0.21 `tuners/lora/aqlm.py`; AqlmHfQuantizer and VptqHfQuantizer of transformers 5.23.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftbench.inputs.schemes.scheme import Scheme
from peftbench.inputs.schemes.written_out import HALF_BYTES, written_out

if TYPE_CHECKING:
    from collections.abc import Callable

    from peftbench.inputs.recipe import QuantizationSpec

VECTOR = 8
"""Weights that a code stands for."""
BOOK_BYTES = 2**16 * VECTOR * HALF_BYTES
"""A book of 16-bit codes."""
SMALL_BOOK_BYTES = 2**8 * VECTOR * HALF_BYTES
"""A book of 8-bit codes."""


def _with_books(books_bytes: int) -> Callable[[int, int, QuantizationSpec], int]:
    """Constants of a layer: its books, and a 16-bit scale for each output."""
    return lambda out_features, in_features, quantization: books_bytes + HALF_BYTES * out_features


def vptq_constants_bytes(out_features: int, in_features: int, quantization: QuantizationSpec) -> int:
    """A book of centroids, one of residuals where there are more than two bits, norms and a permutation of inputs."""
    residual = {2: 0, 3: SMALL_BOOK_BYTES, 4: BOOK_BYTES}[quantization.bits or 2]
    return BOOK_BYTES + residual + 3 * HALF_BYTES * in_features


AQLM = Scheme(
    library="AQLM",
    bits=2,
    constants_bytes=_with_books(BOOK_BYTES),
    constants=lambda quantization: "a book of 65,536 vectors a layer, a 16-bit scale for each output",
    forward=written_out(keeps_input=True),  # save_for_backward(input, …)
    written_itemsize=lambda quantization: HALF_BYTES,
    checkpoint=True,
    reaches_subclasses=True,
    blocks_only=True,
    adapters=("lora",),
    lora_leaves_input=True,
    step_doubt="no steps with AQLM weights published",
    unshardable="no sharded run of AQLM's integer codes is modelled",
)
SCHEMES = {
    "aqlm-1x16": AQLM,
    "aqlm-2x8": AQLM._replace(
        constants_bytes=_with_books(2 * SMALL_BOOK_BYTES),
        constants=lambda quantization: "two books of 256 vectors a layer, a 16-bit scale for each output",
    ),
    "vptq": AQLM._replace(
        library="VPTQ",
        bits_choices=(2, 3, 4),
        options=("bits",),
        constants_bytes=vptq_constants_bytes,
        constants=lambda quantization: "books of vectors, norms and the order of inputs of each layer",
        untrainable="transformers does not train on VPTQ weights (VptqHfQuantizer.is_trainable), nor has PEFT a layer",
    ),
}
