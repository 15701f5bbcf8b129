"""Answer what depends on data that does not exist: how many elements a mask picks, what a number read back is.

Where a shape or a branch depends on values, code gets those that real data has: masks of tokens are full, weights and
losses finite, and what is known is used. So SHiRA's masks have as many elements set as there were indices, and each
expert gets its share of the tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import floor
from typing import Any

import torch
from torch.utils._mode_utils import no_dispatch

from peftbench.dryrun.fake.known import Known, known_of, picked

aten = torch.ops.aten
MASKS = (torch.bool, torch.uint8)
OPEN = object()
"""The answer where the arguments do not depend on data: the operation has to be run."""


def _item(tensor: torch.Tensor) -> bool | float | int:
    """1 where nothing is known: gradients are finite, masks are full."""
    constant, known = getattr(tensor, "constant", None), known_of(tensor)
    if constant is not None:
        with no_dispatch():
            found: bool | float | int = constant.item()
        return found
    value = 1 if known is None else _element(tensor, known)
    return bool(value) if tensor.dtype is torch.bool else float(value) if tensor.is_floating_point() else int(value)


def _element(tensor: torch.Tensor, known: Known) -> float:
    """Whole numbers whose mean is not whole, so that they add up: 2, 3, 2, 3 for an average of 2.5."""
    if known.each is None:
        return min(known.nonzeros, 1)
    position = tensor.storage_offset()
    return floor((position + 1) * known.each) - floor(position * known.each)


def _nonzero(mask: torch.Tensor) -> torch.Tensor:
    return mask.new_empty((picked(mask), mask.dim()), dtype=torch.long)


def _index(tensor: torch.Tensor, indices: list[torch.Tensor | None]) -> Any:
    """Masks among the indices become positions, as index() of a card makes of them."""
    if not any(index is not None and index.dtype in MASKS for index in indices):
        return OPEN
    positions: list[torch.Tensor | None] = []
    for index in indices:
        positions += _nonzero(index).unbind(1) if index is not None and index.dtype in MASKS else [index]
    return aten.index.Tensor(tensor, positions)


def _masked_select(tensor: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    times = torch.broadcast_shapes(tensor.shape, mask.shape).numel() / max(mask.numel(), 1)
    return tensor.new_empty((round(picked(mask) * times),))


def _bincount(tensor: torch.Tensor, weights: torch.Tensor | None = None, minlength: int = 0) -> torch.Tensor:
    return tensor.new_empty((max(minlength, 1),), dtype=torch.long if weights is None else weights.dtype)


def _repeat_interleave(repeats: torch.Tensor, output_size: int | None = None) -> torch.Tensor:
    """Each once, unless it is given how many there are."""
    return repeats.new_empty((repeats.numel() if output_size is None else output_size,))


def _unique(tensor: torch.Tensor, *_: object, **__: object) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One value only: the loops over values that were found run once."""
    positions = tensor.new_empty(tensor.shape, dtype=torch.long)
    return tensor.new_empty((1,)), positions, positions.new_ones(1)


ANSWERS: Mapping[Any, Callable[..., Any]] = {
    aten._local_scalar_dense.default: _item,
    aten.nonzero.default: _nonzero,
    aten.index.Tensor: _index,
    aten.masked_select.default: _masked_select,
    aten.bincount.default: _bincount,
    aten.repeat_interleave.Tensor: _repeat_interleave,
    aten._unique2.default: _unique,
    aten.unique_consecutive.default: _unique,
    aten.equal.default: lambda *_, **__: True,
    aten.allclose.default: lambda *_, **__: True,
}
"""For each operation a function of its arguments that returns its result."""
