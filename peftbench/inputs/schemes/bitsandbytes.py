"""bitsandbytes: 4-bit codes (NF4, FP4) with a constant for each block, and LLM.int8() with one for each row.

Source: bitsandbytes 0.50 `functional.quantize_4bit`, `QuantState`, `nn/modules.py` and `autograd/_functions.py`;
transformers 5.23 `integrations/bitsandbytes.py`; PEFT 0.21 `tuners/*/bnb.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftbench.inputs.schemes.scheme import Scheme
from peftbench.memory import Part

if TYPE_CHECKING:
    from peftbench.estimate.tape.autograd import Tensor
    from peftbench.estimate.tape.modules import Context
    from peftbench.inputs.recipe import QuantizationSpec

FLOAT32_BYTES = 4
NESTED_BLOCKSIZE = 256
"""Absmax values that share one float32, when the absmax is quantized itself."""
CODE_BYTES = 16 * FLOAT32_BYTES
"""Every QuantState has its own table of the 16 values a code stands for."""
NESTED_CODE_BYTES = 256 * FLOAT32_BYTES
"""… and under double quantization its own copy of the 256 values of an 8-bit absmax."""


def block_constants_bytes(out_features: int, in_features: int, quantization: QuantizationSpec) -> int:
    """An absmax in float32 for each block of weights, and a table.

    Double quantization stores the absmax in 8 bit, with a float32 for each 256, another table and an offset.
    """
    blocks = -(-out_features * in_features // _blocksize(quantization))
    if not quantization.double_quant:
        return blocks * FLOAT32_BYTES + CODE_BYTES
    nested = -(-blocks // NESTED_BLOCKSIZE) * FLOAT32_BYTES
    return blocks + nested + CODE_BYTES + NESTED_CODE_BYTES + FLOAT32_BYTES


def _block_constants(quantization: QuantizationSpec) -> str:
    if quantization.double_quant:
        return f"an 8-bit absmax for each {quantization.blocksize} weights, a float32 for each 256 of those"
    return f"a float32 absmax for each {quantization.blocksize} weights"


def _blocksize(quantization: QuantizationSpec) -> int:
    assert quantization.blocksize is not None  # 4-bit schemes have one
    return quantization.blocksize


def linear_4bit(c: Context, x: Tensor, out_features: int) -> Tensor:
    """Linear4bit: the weight is dequantized for the product and again for the input's gradient; x is not saved."""
    quantization, tape = c.quantization, c.tape
    assert quantization is not None  # callers ask for it
    elements, compute = x.width * out_features, quantization.compute_dtype.bytes
    low = tape.cast(x, compute)
    absmax = elements // _blocksize(quantization) * FLOAT32_BYTES
    dequantized = elements * compute + (absmax if quantization.double_quant else 0)
    # The kernel writes its output beside the dequantized weight; forward for more than a few tokens.
    out = tape.tensor(out_features, compute, x.needs_grad)
    tape.scratch(Part.DEQUANTIZATION, 0, dequantized)
    if x.needs_grad:
        if c.quantized_saves_input:
            _keep_on_ctx(c, low)
        tape.record((out,), (low,), scratch=((Part.DEQUANTIZATION, 0, dequantized),))
    return tape.cast(out, x.itemsize)


def linear_8bit(c: Context, x: Tensor, out_features: int) -> Tensor:
    """Linear8bitLt: x itself stays on the ctx (MatMul8bitLt's ctx.tensors); products go through int8 and int32."""
    tape, elements = c.tape, x.width * out_features
    half = 0 if x.itemsize == 2 and tape.autocast is None else 2 * x.width
    tape.scratch(Part.DEQUANTIZATION, half + x.width, 0)
    out = tape.tensor(out_features, x.itemsize, x.needs_grad)
    tape.scratch(Part.DEQUANTIZATION, x.width + FLOAT32_BYTES * out_features, 0)
    if x.needs_grad:
        _keep_on_ctx(c, x)
        tape.record((out,), (x,), scratch=((Part.DEQUANTIZATION, 0, elements * x.itemsize),))
    return out


def _keep_on_ctx(c: Context, x: Tensor) -> None:
    """ctx.tensors = x in a torch.autograd.Function, without save_for_backward."""
    if c.tape.records and x.storage is not None:
        c.tape.attributes.append(x.storage)


FOUR_BIT = Scheme(
    library="bitsandbytes",
    built=True,
    conv1d=True,
    bits=4,
    constants_bytes=block_constants_bytes,
    constants=_block_constants,
    forward=linear_4bit,
    written_itemsize=lambda quantization: quantization.compute_dtype.bytes,
    options=("blocksize", "double_quant", "compute_dtype"),
    blocksizes=(32, 64, 128, 256, 512, 1024, 2048, 4096),
    blocksize=64,
    lora_copies=True,
    others_copy=True,
    lora_leaves_input=True,
    published=True,
    storage_option="bnb_4bit_quant_storage",
)
INT8 = Scheme(
    library="bitsandbytes",
    built=True,
    conv1d=True,
    bits=8,
    constants_bytes=lambda out_features, in_features, quantization: out_features * FLOAT32_BYTES,
    constants=lambda quantization: "one float32 scale a row",
    forward=linear_8bit,
    written_itemsize=lambda quantization: 0,
    lora_copies=True,
    lora_leaves_input=True,
    step_doubt="no steps with 8-bit weights published",
    unshardable="bitsandbytes keeps their scales beside the tensor",
    keeps_inputs="8-bit layers keep their inputs, which only --use-reentrant drops (MatMul8bitLt's ctx).",
)
SCHEMES = {"nf4": FOUR_BIT, "fp4": FOUR_BIT, "int8": INT8}
