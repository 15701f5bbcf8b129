"""Where files are kept that can be made again: traces of dry runs, a model trained on the spot, calibrations."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from peftbench.base.errors import CatalogError

if TYPE_CHECKING:
    from pathlib import Path


def cache_folder(part: str) -> Path:
    """PEFTBENCH_CACHE as it is, else the folder `part` in the user's cache folder.

    Raises CatalogError where neither is known, as for a user that the system has no entry of.
    """
    from pathlib import Path  # it loads much, and every plan asks for calibration_place

    named = os.environ.get("PEFTBENCH_CACHE")
    if named:
        return Path(named)
    home = os.environ.get("XDG_CACHE_HOME") or _in_home(".cache")
    if not home:
        raise CatalogError("there is no home folder to keep files in.", "Set HOME, or name a folder: PEFTBENCH_CACHE.")
    return Path(home) / "peftbench" / part


def calibration_place() -> str:
    """PEFTBENCH_CALIBRATION, a file or a folder, else a folder in the user's configuration; "" where none is known."""
    home = os.environ.get("XDG_CONFIG_HOME") or _in_home(".config")
    return os.environ.get("PEFTBENCH_CALIBRATION") or (home and os.path.join(home, "peftbench", "calibrations"))


def _in_home(name: str) -> str:
    """"" where no home folder is known."""
    home = os.path.expanduser("~")
    return os.path.join(home, name) if os.path.isabs(home) else ""
