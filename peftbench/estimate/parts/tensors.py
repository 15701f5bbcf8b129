"""A group of equal tensors: the unit in which parameters, gradients, states and files are counted."""

from collections.abc import Iterable
from math import prod
from typing import NamedTuple

from peftbench.inputs.recipe import DType


class TensorGroup(NamedTuple):
    """`count` tensors of one shape and dtype, all of the module kind `module`.

    The size of a single tensor matters, not only the sum: bitsandbytes keeps the states of small tensors in
    32 bit and pages only large ones, and Adafactor stores one value a row and a column.
    """

    module: str
    """The last part of the module's name, as in `target_modules`: "q_proj"."""
    shape: tuple[int, ...]
    count: int  # type: ignore[assignment]  # tuple.count is not used
    dtype: DType
    is_embedding: bool = False
    """The weight of an nn.Embedding."""

    @property
    def tensor_numel(self) -> int:
        """Elements of one of the tensors."""
        return prod(self.shape)

    @property
    def numel(self) -> int:
        """Elements of all of them."""
        return self.count * prod(self.shape)

    @property
    def bytes(self) -> int:
        """Bytes of all of them; also those of their gradients, which have the dtype of the parameter."""
        return self.numel * self.dtype.bytes


def total_numel(groups: Iterable[TensorGroup]) -> int:
    """Elements of all groups."""
    return sum(group.numel for group in groups)


def total_bytes(groups: Iterable[TensorGroup]) -> int:
    """Bytes of all groups."""
    return sum(group.bytes for group in groups)
