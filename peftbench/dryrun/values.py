"""Answer what depends on data that does not exist: how many elements a mask picks, what a number read back is.

Fake tensors have a shape and no data. Where a shape or a branch depends on values, code gets those that real data has:
masks of tokens are full, weights and losses finite. What was zero or made from indices is remembered, so that SHiRA's
masks have as many elements set as there were indices, and each expert gets its share of the tokens.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from math import inf
from typing import Any

import torch

aten = torch.ops.aten
OPEN = object()
"""The answer where an operation does not depend on data: it has to be run."""


def know(tensor: torch.Tensor, nonzeros: int) -> None:
    """Remember how many elements of this tensor, and of all that share its memory, are not zero."""
    tensor.untyped_storage().nonzeros = nonzeros  # type: ignore[attr-defined]


def share(tensor: torch.Tensor) -> float | None:
    """Which share of the tensor's elements is not zero, if that is known; views are as full as the whole."""
    storage = tensor.untyped_storage()
    nonzeros = getattr(storage, "nonzeros", None)
    return None if nonzeros is None else nonzeros * tensor.element_size() / max(storage.nbytes(), 1)


def answer(func: Any, args: Any, kwargs: Any) -> Any:
    """The result of an operation that depends on data; OPEN for any other."""
    found = _ANSWERS.get(func)
    return found(*args, **kwargs) if found else OPEN


def learn(func: Any, args: Any, out: Any) -> None:
    """Remember what an operation tells of its result, and forget what it overwrites."""
    lesson = _LESSONS.get(func)
    before = None if lesson is None else lesson(out, *args)
    for index in _written(func):
        if index < len(args):
            _forget(args[index])
    if before is not None:
        know(out, before)


@functools.cache
def _written(func: Any) -> tuple[int, ...]:
    """The positions of the arguments that the operation overwrites."""
    arguments = func._schema.arguments
    return tuple(i for i, argument in enumerate(arguments) if argument.alias_info and argument.alias_info.is_write)


def _forget(written: Any) -> None:
    for tensor in written if isinstance(written, (list, tuple)) else (written,):
        if isinstance(tensor, torch.Tensor):
            vars(tensor.untyped_storage()).pop("nonzeros", None)


# ── answers ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _item(tensor: torch.Tensor) -> bool | float | int:
    """1 where nothing is known: gradients are finite, masks are full."""
    constant = getattr(tensor, "constant", None)
    value = constant.item() if constant is not None else 0 if share(tensor) == 0 else 1
    return bool(value) if tensor.dtype is torch.bool else float(value) if tensor.is_floating_point() else value


def _picked(mask: torch.Tensor) -> int:
    known = share(mask)
    return mask.numel() if known is None else round(known * mask.numel())


def _nonzero(mask: torch.Tensor) -> torch.Tensor:
    return mask.new_empty((_picked(mask), mask.dim()), dtype=torch.long)


def _index(tensor: torch.Tensor, indices: list[torch.Tensor | None]) -> Any:
    """Masks among the indices become positions, as index() of a card makes of them."""
    if not any(_is_mask(index) for index in indices):
        return OPEN
    positions: list[torch.Tensor | None] = []
    for index in indices:
        positions += _nonzero(index).unbind(1) if index is not None and _is_mask(index) else [index]
    return aten.index.Tensor(tensor, positions)


def _is_mask(index: torch.Tensor | None) -> bool:
    return index is not None and index.dtype in (torch.bool, torch.uint8)


def _masked_select(tensor: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    wide, full = torch.broadcast_tensors(tensor, mask)
    count = round(_picked(mask) * full.numel() / max(mask.numel(), 1))
    picked: torch.Tensor = wide.new_empty((count,))
    return picked


def _bincount(tensor: torch.Tensor, weights: torch.Tensor | None = None, minlength: int = 0) -> torch.Tensor:
    return tensor.new_empty((max(minlength, 1),), dtype=torch.long if weights is None else weights.dtype)


def _repeat_interleave(repeats: torch.Tensor, output_size: int | None = None) -> torch.Tensor:
    """Each once, where it is not said how many there are."""
    return repeats.new_empty((repeats.numel() if output_size is None else output_size,))


def _unique(tensor: torch.Tensor, *_: object, **__: object) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One value only: the loops over values that were found run once."""
    positions = tensor.new_empty(tensor.shape, dtype=torch.long)
    return tensor.new_empty((1,)), positions, positions.new_ones(1)


def _same(*_: object, **__: object) -> bool:
    return True


_ANSWERS: Mapping[Any, Callable[..., Any]] = {
    aten._local_scalar_dense.default: _item,
    aten.nonzero.default: _nonzero,
    aten.index.Tensor: _index,
    aten.masked_select.default: _masked_select,
    aten.bincount.default: _bincount,
    aten.repeat_interleave.Tensor: _repeat_interleave,
    aten._unique2.default: _unique,
    aten.unique_consecutive.default: _unique,
    aten.equal.default: _same,
    aten.allclose.default: _same,
}

# ── lessons: (result, *arguments) to the number of its elements that are not zero, if that is known ─────────────────


def _none(*_: object) -> int:
    return 0


def _full(out: torch.Tensor, size: object, value: object, *_: object) -> int:
    return out.numel() if value else 0


def _as_many(out: torch.Tensor, tensor: torch.Tensor, *_: object) -> int | None:
    """A copy or a selection is as full as its source."""
    known = share(tensor)
    return None if known is None else round(known * out.numel())


def _compared(out: torch.Tensor, tensor: torch.Tensor, value: float) -> int | None:
    """With infinity nothing is equal; with zero, what was zero; with anything else, what was not."""
    if abs(value) == inf:
        return 0
    full = _as_many(out, tensor)
    return full if full is None or value else out.numel() - full


def _unequal(out: torch.Tensor, tensor: torch.Tensor, value: float) -> int | None:
    return None if value else _as_many(out, tensor)


def _one_hot(out: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> int | None:
    """Indices compared with every number that they can be, as one_hot does on fake tensors: each is one of them."""
    one_by_all = left.dim() > 0 and left.shape[-1] == 1 and right.dim() == 1 and right.numel() > 1
    return left.numel() if one_by_all else None


def _scattered(out: torch.Tensor, tensor: torch.Tensor, dim: int, index: torch.Tensor, *_: object) -> int | None:
    return index.numel() if share(tensor) == 0 else None


def _still_none(out: Any, tensor: torch.Tensor, *_: object) -> int | None:
    return 0 if isinstance(out, torch.Tensor) and share(tensor) == 0 else None


_BY_LESSON: Mapping[Callable[..., int | None], tuple[Any, ...]] = {
    _none: (
        aten.zeros.default, aten.zeros_like.default, aten.new_zeros.default, aten.zero_.default,
        aten.isinf.default, aten.isnan.default,
    ),
    _full: (aten.full.default,),
    _as_many: (aten._to_copy.default, aten.clone.default, aten.index.Tensor, aten.index_select.default),
    _compared: (aten.eq.Scalar,),
    _unequal: (aten.ne.Scalar, aten.gt.Scalar),
    _one_hot: (aten.eq.Tensor,),
    _scattered: (aten.scatter.value, aten.scatter.src, aten.scatter_.value, aten.scatter_.src),
    _still_none: (
        aten.any.default, aten.any.dim, aten.any.dims, aten.max.default, aten.sum.default, aten.sum.dim_IntList,
    ),
}  # fmt: skip
_LESSONS = {operation: lesson for lesson, operations in _BY_LESSON.items() for operation in operations}
