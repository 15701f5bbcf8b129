"""The option --calibration of `plan` and `choose`: the cards with what was measured on them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from peftbench.base.cache_folder import calibration_place

if TYPE_CHECKING:
    from peftbench.inputs.card.gpu import GpuSpec

CALIBRATION = click.Option(
    ["--calibration"], metavar="FILE",
    help="File that `peftbench calibrate` wrote for the card, or `none`; default: where it writes that file.",
)  # fmt: skip


def calibrated(cards: tuple[GpuSpec, ...], file: str | None, transformers: str | None = None) -> tuple[GpuSpec, ...]:
    """The cards; what reads calibrations is loaded where a file is named, or some lie in their place."""
    if not file and not _any_calibration(calibration_place()):
        return cards
    from peftbench.base.screen import tell
    from peftbench.decide.calibrated import calibrated_cards

    return calibrated_cards(cards, file, tell, transformers)


def _any_calibration(place: str) -> bool:
    """Whether the place is a file, or a folder that has one: an empty folder is left alone."""
    try:
        return any(name.endswith(".json") for name in os.listdir(place))
    except NotADirectoryError:
        return True
    except OSError:
        return False
