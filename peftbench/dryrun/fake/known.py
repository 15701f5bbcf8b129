"""Remember what little is known of tensors whose data does not exist: zeros, ones, and masks as long as a list.

It is kept with the memory, so views share it, and forgotten when an operation writes there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from math import inf
from typing import Any, NamedTuple

import torch

aten = torch.ops.aten


class Known(NamedTuple):
    """What is remembered of a storage, and so of all views of it."""

    nonzeros: int
    """How many elements are not zero."""
    each: float | None = None
    """What each element is, or where it is no whole number, what it is on average."""


def know(tensor: torch.Tensor, known: Known) -> None:
    """Remember it of this tensor's memory until an operation writes there."""
    tensor.untyped_storage().known = known  # type: ignore[attr-defined]


def known_of(tensor: torch.Tensor) -> Known | None:
    """What was remembered."""
    return getattr(tensor.untyped_storage(), "known", None)


def share(tensor: torch.Tensor) -> float | None:
    """Which share of the tensor's elements is not zero, if that is known; views are as full as the whole."""
    known = known_of(tensor)
    storage_bytes = max(tensor.untyped_storage().nbytes(), 1)
    return None if known is None else known.nonzeros * tensor.element_size() / storage_bytes


def picked(mask: torch.Tensor) -> int:
    """How many elements of a mask are set: all, unless it is known."""
    full = share(mask)
    return mask.numel() if full is None else round(full * mask.numel())


def learn(func: Any, args: Any, out: Any) -> None:
    """Remember what an operation tells of its result, and forget what it overwrites."""
    lesson = _LESSONS.get(func)
    known = None if lesson is None else lesson(out, *args)
    for index in _written(func):
        written = args[index] if index < len(args) else ()
        for tensor in written if isinstance(written, (list, tuple)) else (written,):
            if isinstance(tensor, torch.Tensor):
                vars(tensor.untyped_storage()).pop("known", None)
    if known is not None:
        know(out, known)


@functools.cache
def _written(func: Any) -> tuple[int, ...]:
    """The positions of the arguments that the operation overwrites."""
    arguments = func._schema.arguments
    return tuple(i for i, argument in enumerate(arguments) if argument.alias_info and argument.alias_info.is_write)


# ── lessons: (result, *arguments) to what is known of the result ────────────────────────────────────────────────────


def _copied(out: torch.Tensor, tensor: torch.Tensor, *_: object) -> Known | None:
    """A copy or a selection is as full as its source."""
    known, full = known_of(tensor), share(tensor)
    return None if known is None or full is None else Known(round(full * out.numel()), known.each)


def _compared(out: torch.Tensor, tensor: torch.Tensor, value: float) -> Known | None:
    """With infinity nothing is equal; with zero, what was zero; with anything else, what was not."""
    if abs(value) == inf:
        return Known(0)
    full = share(tensor)
    return None if full is None else Known(round((full if value else 1 - full) * out.numel()))


def _unequal(out: torch.Tensor, tensor: torch.Tensor, value: float) -> Known | None:
    full = share(tensor)
    return None if full is None or value else Known(round(full * out.numel()))


def _inverted(out: torch.Tensor, mask: torch.Tensor) -> Known | None:
    """Masks are full, unless it is known how full they are."""
    if mask.dtype is not torch.bool:
        return None
    full = share(mask)
    return Known(0 if full is None else round((1 - full) * out.numel()))


def _one_hot(out: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> Known | None:
    """Indices compared with every number that they can be, as one_hot does on fake tensors: each is one of them."""
    one_by_all = left.dim() > 0 and left.shape[-1] == 1 and right.dim() == 1 and right.numel() > 1
    return Known(left.numel()) if one_by_all else None


def _reduced(out: Any, tensor: torch.Tensor, *_: object) -> Known | None:
    """The largest of equal elements is any of them."""
    if not isinstance(out, torch.Tensor):
        return None
    known = known_of(tensor)
    return Known(0, 0) if share(tensor) == 0 else None if known is None else Known(out.numel(), known.each)


def _summed(out: torch.Tensor, tensor: torch.Tensor, *_: object) -> Known | None:
    """How many elements of a mask are set: as many for each row as for any other."""
    full = 1.0 if known_of(tensor) is None and tensor.dtype is torch.bool else share(tensor)
    if out.is_floating_point() or full is None or not out.numel():
        return None
    known = known_of(tensor)
    each = full if known is None or known.each is None else known.each
    return Known(out.numel() if full else 0, each * tensor.numel() / out.numel())


_BY_LESSON: tuple[tuple[Callable[..., Known | None], tuple[Any, ...]], ...] = (
    (lambda *_: Known(0, 0), (
        aten.zeros.default, aten.zeros_like.default, aten.new_zeros.default, aten.zero_.default,
        aten.isinf.default, aten.isnan.default,
    )),
    (lambda out, *_: Known(out.numel(), 1), (aten.ones.default, aten.ones_like.default, aten.new_ones.default)),
    (
        lambda out, _, value, *__: Known(out.numel() if value else 0, value),
        (aten.full.default, aten.full_like.default, aten.new_full.default),
    ),
    (_copied, (aten._to_copy.default, aten.clone.default, aten.index.Tensor, aten.index_select.default)),
    (_compared, (aten.eq.Scalar,)),
    (_unequal, (aten.ne.Scalar, aten.gt.Scalar)),
    (_inverted, (aten.bitwise_not.default, aten.logical_not.default)),
    (
        lambda out, masks, *_: Known(sum(map(picked, masks))) if out.dtype is torch.bool else None,
        (aten.cat.default,),
    ),
    (_one_hot, (aten.eq.Tensor,)),
    (
        lambda out, tensor, dim, index, *_: Known(index.numel()) if share(tensor) == 0 else None,
        (aten.scatter.value, aten.scatter.src, aten.scatter_.value, aten.scatter_.src),
    ),
    (_reduced, (aten.any.default, aten.any.dim, aten.any.dims, aten.max.default, aten.amax.default)),
    (_summed, (aten.sum.default, aten.sum.dim_IntList)),
    (
        lambda out, tensor, *_: Known(out.numel(), tensor.numel() / max(out.numel(), 1)),
        (aten.bincount.default, aten.histc.default),
    ),
)  # fmt: skip
_LESSONS = {operation: lesson for lesson, operations in _BY_LESSON for operation in operations}
