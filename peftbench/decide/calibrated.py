"""Give a card the constants that were measured on it, where card and stack are those of the calibration."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping

from peftbench.base.errors import CatalogError, PeftbenchError
from peftbench.catalog.gpus import find_gpu
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.records.calibration import OFF, STACK, Calibration, default_path, read_calibration, stack_of

_PLAN_WITHOUT = f"Plan without it: --calibration {OFF}"


def calibrated_cards(
    cards: Iterable[GpuSpec], file: str | None, report: Callable[[str], None], transformers: str | None = None
) -> tuple[GpuSpec, ...]:
    """The cards, each with the constants measured on it where there are any.

    `file` is one that was named, which has to be of one of the cards and of this stack; None looks in the default
    place of each card, where one that cannot be read or is of another stack is left alone and reported; "none"
    calibrates nothing.
    `transformers` is the generation that is planned, where it was given. Raises CatalogError.
    """
    cards = tuple(cards)
    if file == OFF:
        return cards
    if file is not None:
        return _with_named(cards, read_calibration(file), file, transformers)
    return tuple(_with_default(card, report, transformers) for card in cards)


def _with_named(
    cards: tuple[GpuSpec, ...], found: Calibration, file: str, transformers: str | None
) -> tuple[GpuSpec, ...]:
    if not any(is_of(found, card) for card in cards):
        names = ", ".join(card.product for card in cards[:3]) + (" …" if len(cards) > 3 else "")
        raise CatalogError(f"{file} is a calibration of {found.product}, not of {names}.", _PLAN_WITHOUT)
    if why := other_stack(found, installed(), transformers):
        raise CatalogError(f"{file} {why}.", f"Calibrate with the libraries that are planned. {_PLAN_WITHOUT}")
    return tuple(with_constants(card, found) if is_of(found, card) else card for card in cards)


def _with_default(card: GpuSpec, report: Callable[[str], None], transformers: str | None) -> GpuSpec:
    path = default_path(card_name(card.product) if card.name == "local" else card.name)
    if not os.path.lexists(path):
        return card
    try:
        found = read_calibration(path)
    except CatalogError as error:
        report(f"the calibration of {card.name} is not used: {error.what}")
        return card
    if not is_of(found, card):
        return card
    if why := other_stack(found, installed(), transformers):
        report(f"the calibration of {card.name} is not used: it {why}.")
        return card
    return with_constants(card, found)


def with_constants(card: GpuSpec, found: Calibration) -> GpuSpec:
    """Constants that are relative to a data sheet keep what was measured when the catalogue's figure changes."""
    changed = {
        "matmul_share": (found.tensor_flops, card.tensor_flops),
        "dequantized_bytes": (card.memory_bandwidth, found.memory_bandwidth),
    }
    factors = {name: over / under for name, (over, under) in changed.items() if over and under}
    constants = found.card_constants
    time = tuple((name, value * factors.get(name, 1.0)) for name, value in constants.time)
    return card.calibrated(constants._replace(time=time))


def is_of(found: Calibration, card: GpuSpec) -> bool:
    """Whether it was measured on this card, by whichever of the names that the catalogue knows it by."""
    return not card.is_cpu and found.device == "cuda" and card_name(found.product) == card_name(card.product)


def card_name(product: str) -> str:
    """What the catalogue calls a product; the product itself where it does not know it."""
    try:
        return find_gpu(product).name
    except CatalogError:
        return product


def other_stack(found: Calibration, here: Mapping[str, str], transformers: str | None = None) -> str:
    """Why it says nothing about this stack; empty where it does. What is not installed is not compared."""
    for name, version in found.stack.items():
        if name in here and here[name] != version:
            return f"is of {name} {version}, not of {here[name]}"
    planned, measured = transformers or "", found.stack.get("transformers", "")
    if planned and measured and planned.split(".") != measured.split(".")[: len(planned.split("."))]:
        return f"is of transformers {measured}, not of {planned}"
    return ""


def installed() -> dict[str, str]:
    """The minor versions of the libraries that count, of those that are here."""
    from peftbench.libraries.versions import installed_versions  # importlib.metadata loads much, and few plans need it

    return stack_of(installed_versions(STACK))


def refuse_own_rows(found: Calibration, file: str, seen: Iterable[str]) -> None:
    """Raises PeftbenchError where any of the records, named by fingerprint, is one that it was fitted on."""
    fitted = set(found.records)
    own = sum(one in fitted for one in seen)
    if own:
        raise PeftbenchError(
            f"{file} was fitted on {own} of these records: it cannot be judged by them.",
            "Its held-out error is in the file; or validate it on other runs of the card.",
        )
