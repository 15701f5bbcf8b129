"""The option --calibration of `plan` and `choose`: the cards with what was measured on them."""

from __future__ import annotations

import os.path
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
    if not file and not os.path.exists(calibration_place()):
        return cards
    from peftbench.cli.progress import tell
    from peftbench.decide.calibrated import calibrated_cards

    return calibrated_cards(cards, file, tell, transformers)
