"""Errors in groups: which rows belong together, and how far off most of them are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

Row = TypeVar("Row")


def grouped(rows: Iterable[Row], key: Callable[[Row], str]) -> dict[str, list[Row]]:
    """The rows of each key, both in the order in which they come."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def nine_of_ten(values: Sequence[float]) -> float:
    """Nine of ten values are no larger; at least one value."""
    return sorted(values)[math.ceil(0.9 * len(values)) - 1]


def factor_of(ratio: float) -> float:
    """How far off a ratio is, in either direction: 1 is exact."""
    return max(ratio, 1 / ratio)
