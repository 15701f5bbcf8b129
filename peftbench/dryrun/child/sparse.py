"""A sparse matrix whose kernels no fake tensor can take: the tensors that they make and keep, made of strided ones.

SHiRA and FRoD train the values of one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import Function


class Sparse:
    """What torch.sparse_coo_tensor returns, as far as PEFT uses it."""

    def __init__(self, indices: torch.Tensor, values: torch.Tensor, size: tuple[int, ...]) -> None:
        self.indices = indices.long()
        self.values = values
        self.size = size

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = _FUNCTIONS.get(func)
        return found(*args) if found else NotImplemented

    def _nnz(self) -> int:
        return self.values.numel()

    def coalesce(self) -> Sparse:
        """Sorted anew. Source: coalesce_sparse_cuda in aten/src/ATen/native/sparse/cuda/SparseCUDATensor.cu."""
        flat_origins_offsets = [_flat(self.indices) for _ in range(3)]
        flat_origins_offsets[0].sort()
        return Sparse(torch.empty_like(self.indices), self.values.clone(), self.size)

    def to_dense(self) -> torch.Tensor:
        """Zeros, and the values in them."""
        zeros = self.values.new_zeros(self.size)
        return self.added_to(zeros)

    def added_to(self, dense: torch.Tensor) -> torch.Tensor:
        """The operation in place."""
        found: torch.Tensor = _Added.apply(dense, self.values, self.indices)
        return found

    def times(self, dense: torch.Tensor) -> torch.Tensor:
        """The product of the two."""
        found: torch.Tensor = _Product.apply(self.values, dense, self.indices, self.size)
        return found


_FUNCTIONS: dict[Any, Callable[..., torch.Tensor]] = {
    torch.Tensor.__iadd__: lambda dense, sparse: sparse.added_to(dense),
    torch.Tensor.add_: lambda dense, sparse: sparse.added_to(dense),
    torch.sparse.mm: lambda sparse, dense: sparse.times(dense),
}


def _flat(indices: torch.Tensor) -> torch.Tensor:
    """Rows and columns as one number each. Source: flatten_indices in aten/src/ATen/native/sparse."""
    return indices.new_empty((indices.shape[1],))


def _masked(gradient: torch.Tensor, values: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """The gradient of the values out of that of the matrix: sparse_mask of it."""
    return gradient.to(values.dtype).reshape(-1).index_select(0, _flat(indices))


class _Added(Function):
    """Source: add_out_dense_sparse_cuda in aten/src/ATen/native/sparse/cuda/SparseCUDATensorMath.cu."""

    @staticmethod
    def forward(ctx: Any, dense: torch.Tensor, values: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        ctx.mark_dirty(dense)
        ctx.save_for_backward(values, indices)
        common = torch.promote_types(dense.dtype, values.dtype)
        wide = dense if dense.dtype is common else torch.empty_like(dense, dtype=common)
        buffer = dense.to(common)
        wide.view(-1).index_add_(0, _flat(indices), values.to(common))
        del buffer
        return dense if wide is dense else dense.copy_(wide)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0], _masked(gradients[0], *ctx.saved_tensors), None


class _Product(Function):
    """Source: _sparse_addmm and its derivative, which makes the gradient of the whole matrix."""

    @staticmethod
    def forward(
        ctx: Any, values: torch.Tensor, dense: torch.Tensor, indices: torch.Tensor, size: tuple[int, ...]
    ) -> torch.Tensor:
        ctx.save_for_backward(values, dense, indices)
        return dense.new_zeros((size[0], dense.shape[1]))

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        values, dense, indices = ctx.saved_tensors
        of_dense = torch.empty_like(dense) if ctx.needs_input_grad[1] else None
        return _masked(gradients[0] @ dense.t(), values, indices), of_dense, None, None
