"""Memory that kernels of a card ask the allocator for while they run: fake kernels only know their results.

Each function returns the bytes of what is alive beside the operation's inputs and results, with its source.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import torch

from peftbench.allocator.blocks import aligned
from peftbench.dryrun.fake.card import CARD
from peftbench.estimate.tape.device import partial_sums_bytes
from peftbench.memory import Part

Sizes = Callable[[Any, Any], list[int]]
REGISTER_WIDTH = 128
"""Channels of a value that memory-efficient attention accumulates in registers."""
NORM_CHUNK = 65_536

GEMMS = frozenset(
    getattr(torch.ops.aten, name).default for name in ("mm", "addmm", "bmm", "baddbmm", "_grouped_mm")
    if hasattr(torch.ops.aten, name)
)  # fmt: skip
"""Operations that cuBLAS runs."""


def _flash_backward(args: Any, _: Any) -> list[int]:
    """Row sums and a float32 accumulator of dQ; dK and dV of every query head where heads share keys.

    Source: mha_bwd in aten/src/ATen/native/transformers/cuda/flash_attn/flash_api.cpp.
    """
    query, key = args[1], args[2]
    batch, heads, length, head_dim = query.shape
    rows = batch * heads * aligned(length, 128) * 4
    rounded = aligned(head_dim, 32) if head_dim <= 192 else 256
    expanded = batch * key.shape[2] * heads * head_dim * query.element_size()
    return [rows, rows * rounded, *([expanded] * 2 if key.shape[1] != heads else [])]


def _efficient_forward(args: Any, _: Any) -> list[int]:
    """A float32 accumulator of the output, where the type is 16 bit and values are too wide for the registers.

    Source: kNeedsOutputAccumulatorBuffer in mem_eff_attention/kernel_forward.h beside attention.cu.
    """
    query, value = args[0], args[2]
    wide = query.dtype is not torch.float32 and value.shape[-1] > REGISTER_WIDTH
    return [prod(query.shape[:3]) * value.shape[-1] * 4] if wide else []


def _efficient_backward(args: Any, _: Any) -> list[int]:
    """Row sums, and a float32 accumulator of dQ where the type is 16 bit; else the product that is summed.

    Source: _efficient_attention_backward in aten/src/ATen/native/transformers/cuda/attention_backward.cu, and
    kKernelComputesDelta in mem_eff_attention/kernel_backward.h.
    """
    query, value = args[1], args[3]
    batch, heads, length, head_dim = query.shape
    rows = batch * heads * length * 4
    if query.dtype is torch.float32:  # the sum of gradient * output, and its transposed copy
        return [rows * value.shape[-1], rows, rows]
    return [rows, batch * heads * aligned(length, 128) * aligned(head_dim, 64) * 4]


def _softmax_backward(args: Any, _: Any) -> list[int]:
    """The product of gradient and output. Source: softmax_backward_cuda_out in aten/src/ATen/native/cuda/SoftMax.cu."""
    return [args[0].nbytes]


def _safe_softmax(args: Any, _: Any) -> list[int]:
    """The softmax, and a mask of rows that see nothing, from which the result is chosen.

    Source: _safe_softmax in aten/src/ATen/native/transformers/attention.cpp.
    """
    return [args[0].nbytes, args[0].numel()]


def _gemm_4bit(args: Any, kwargs: Any) -> list[int]:
    """The matrix written out, where bitsandbytes multiplies so many tokens without its fused kernel.

    Source: gemm_4bit and _dequant_linear_fallback in bitsandbytes/backends/cuda/ops.py, asked itself which it takes.
    """
    inputs, shape, blocksize = args[0], args[2], args[4]
    tokens, numel = inputs.numel() // inputs.shape[-1], prod(shape)
    if CARD.fuses_gemm_4bit(inputs.dtype, tokens, shape[0], inputs.shape[-1], blocksize):
        return []
    nested = kwargs.get("absmax_8bit") is not None or (len(args) > 7 and args[7] is not None)
    constants = -(-numel // blocksize) * 4
    return [*([constants] * 2 if nested else []), numel * inputs.element_size()]


def _int8_quantize(args: Any, kwargs: Any) -> list[int]:
    """Where outliers are looked for: |A| and a mask of it, and what argwhere needs.

    Source: int8_vectorwise_quant in bitsandbytes/backends/cuda/ops.py.
    """
    threshold = args[1] if len(args) > 1 else kwargs.get("threshold", 0.0)
    return [args[0].nbytes, args[0].numel()] if threshold > 0 else []


def _int8_multiply(args: Any, _: Any) -> list[int]:
    """The int32 product, and the float16 result before it is cast to another type.

    Source: int8_scaled_mm in bitsandbytes/backends/default/ops.py, int8_mm_dequant in backends/cuda/ops.py.
    """
    numel = args[0].numel() // args[0].shape[-1] * args[1].shape[0]
    return [numel * 4, numel * 2]


def _fft(args: Any, _: Any) -> list[int]:
    """cuFFT's work area: as much as the numbers, for a transform of two dimensions.

    Source: _fft_c2c_cufft in aten/src/ATen/native/cuda/SpectralOps.cpp takes it from the allocator; its size by
    readings of cuFFT (CUDA.jl issue 894). Those of one dimension are not known, and are left out.
    """
    return [args[0].nbytes] if len(args[1]) == 2 else []


FEW_INDICES = 3072
INDICES_PER_THREAD = 10


def _embedding_backward(args: Any, _: Any) -> list[int]:
    """Beyond 3072 tokens the indices are sorted, and partial sums of the gradient are kept in float32.

    Source: embedding_dense_backward_cuda in aten/src/ATen/native/cuda/Embedding.cu, embedding_backward_cuda_kernel
    in EmbeddingBackwardKernel.cu.
    """
    gradient, indices = args[0], args[1]
    number = indices.numel()
    if number <= FEW_INDICES:
        return []
    segments = number // INDICES_PER_THREAD + min(number, args[2])
    sums = segments * gradient.shape[-1] * 4
    return [number * 8] * 3 + [sums]


def _sort(args: Any, _: Any) -> list[int]:
    """Double buffers of keys and positions. Source: cub's radix sort, called in aten/src/ATen/native/cuda/Sort.cpp."""
    return [args[0].numel() * (args[0].element_size() + 8)]


def _index_put(args: Any, kwargs: Any) -> list[int]:
    """Linear and sorted positions where values accumulate. Source: aten/src/ATen/native/cuda/Indexing.cu."""
    accumulate = args[3] if len(args) > 3 else kwargs.get("accumulate", False)
    number = max((index.numel() for index in args[1] if index is not None), default=0)
    return [number * 8] * 3 if accumulate else []


def _reduction(args: Any, kwargs: Any) -> list[int]:
    """Partial results, where several blocks sum many rows into one, as for the gradient of a vector."""
    tensor, reduced = args[0], set(_dimensions(args, kwargs))
    first = len(reduced)
    if not 0 < first < tensor.dim() or reduced != set(range(first)):
        return []  # of all, or along rows
    rows, outputs = prod(tensor.shape[:first]), prod(tensor.shape[first:])
    return [partial_sums_bytes(rows, outputs, CARD.reducing_blocks)] if tensor.is_floating_point() else []


def _dimensions(args: Any, kwargs: Any) -> list[int]:
    """Those that are reduced."""
    given = args[1] if len(args) > 1 else kwargs.get("dim")
    given = range(args[0].dim()) if given is None else [given] if isinstance(given, int) else given
    return [number % max(args[0].dim(), 1) for number in given]


def _norms(args: Any, _: Any) -> list[int]:
    """A number for each chunk of 65,536 elements, as many for each tensor as the largest needs.

    Source: foreach_tensor_norm_cuda in aten/src/ATen/native/cuda/ForeachReduceOp.cu.
    """
    return [4 * len(args[0]) * max(-(-tensor.numel() // NORM_CHUNK) for tensor in args[0])]


def _masked_scatter(args: Any, _: Any) -> list[int]:
    """Prefix sums, and the mask where it has to be expanded.

    Source: masked_scatter__cuda in aten/src/ATen/native/cuda/IndexKernel.cpp.
    """
    numel = args[0].numel()
    return [8 * numel, *([numel] if args[1].numel() != numel or 0 in args[1].stride() else [])]


def _operand_copies(args: Any, _: Any) -> list[int]:
    """What cuBLAS is given copies of: matrices whose rows and columns are both apart.

    Source: prepare_batch_matrix_for_cublas in aten/src/ATen/native/cuda/Blas.cpp.
    """
    matrices = [arg for arg in args if isinstance(arg, torch.Tensor) and arg.dim() >= 2]
    return [matrix.numel() * matrix.element_size() for matrix in matrices[-2:] if not _is_laid_out(matrix)]


def _is_laid_out(matrix: torch.Tensor) -> bool:
    """One of the last two dimensions is contiguous, and its rows do not overlap."""
    (rows, columns), (row, column) = matrix.shape[-2:], matrix.stride()[-2:]
    return (column == 1 and row >= max(1, columns)) or (row == 1 and column >= max(1, rows))


SCRATCH: Mapping[str, tuple[Part, Sizes]] = {
    "aten::_scaled_dot_product_flash_attention_backward": (Part.ACTIVATIONS, _flash_backward),
    "aten::_scaled_dot_product_efficient_attention": (Part.ACTIVATIONS, _efficient_forward),
    "aten::_scaled_dot_product_efficient_attention_backward": (Part.ACTIVATIONS, _efficient_backward),
    "aten::_fft_c2c": (Part.ACTIVATIONS, _fft),
    "aten::_softmax_backward_data": (Part.ACTIVATIONS, _softmax_backward),
    "aten::_safe_softmax": (Part.ACTIVATIONS, _safe_softmax),
    "aten::sum": (Part.WORKSPACE, _reduction),
    "aten::mean": (Part.WORKSPACE, _reduction),
    **{f"aten::{name}": (Part.ACTIVATIONS, _operand_copies) for name in ("mm", "addmm", "bmm", "baddbmm")},
    "aten::_foreach_norm": (Part.WORKSPACE, _norms),
    "aten::masked_scatter": (Part.WORKSPACE, _masked_scatter),
    "aten::masked_scatter_": (Part.WORKSPACE, _masked_scatter),
    "aten::embedding_dense_backward": (Part.WORKSPACE, _embedding_backward),
    "aten::sort": (Part.WORKSPACE, _sort),
    "aten::topk": (Part.WORKSPACE, _sort),
    "aten::index_put": (Part.WORKSPACE, _index_put),
    "aten::index_put_": (Part.WORKSPACE, _index_put),
    "aten::_index_put_impl_": (Part.WORKSPACE, _index_put),
    "bitsandbytes::gemm_4bit": (Part.DEQUANTIZATION, _gemm_4bit),
    "bitsandbytes::int8_vectorwise_quant": (Part.ACTIVATIONS, _int8_quantize),
    "bitsandbytes::int8_scaled_mm": (Part.ACTIVATIONS, _int8_multiply),
    "bitsandbytes::int8_mixed_scaled_mm": (Part.ACTIVATIONS, lambda args, kwargs: _int8_multiply(args[1:], kwargs)),
}
"""What memory a kernel takes by itself: the part that it counts as, and the function of its arguments."""
