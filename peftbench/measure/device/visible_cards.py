"""Which cards a process may use: CUDA_VISIBLE_DEVICES, read as CUDA reads it."""

from __future__ import annotations

from collections.abc import Sequence

VARIABLE = "CUDA_VISIBLE_DEVICES"


def choose_visible(cards: Sequence[str], setting: str | None, instances: Sequence[str] = ()) -> tuple[int, ...]:
    """Positions in `cards` and, counted on, in `instances` that a setting names, in its order.

    Both are UUIDs: "GPU-…" of cards in PCI bus order and "MIG-…" of MIG instances. A number means a card, the
    beginning of a UUID whatever it fits alone; an entry that names nothing hides itself and everything after it.
    Source: CUDA C++ Programming Guide, CUDA environment variables.
    """
    if setting is None:
        return tuple(range(len(cards)))
    chosen: list[int] = []
    for entry in map(str.strip, setting.split(",")):
        named = [n for n, uuid in enumerate([*cards, *instances]) if _names(entry, n, uuid, len(cards))]
        if len(named) != 1:
            break
        chosen += named
    return tuple(chosen)


def _names(entry: str, number: int, uuid: str, cards: int) -> bool:
    return (entry == str(number) and number < cards) or (entry.startswith(("GPU-", "MIG-")) and uuid.startswith(entry))
