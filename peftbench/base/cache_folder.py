"""Where files are kept that can be made again: traces of dry runs, a model trained on the spot, calibrations."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def cache_folder(part: str) -> Path:
    """PEFTBENCH_CACHE as it is, else the folder `part` in the user's cache folder."""
    from pathlib import Path  # it loads much, and every plan asks for calibration_place

    named = os.environ.get("PEFTBENCH_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "peftbench" / part


def calibration_place() -> str:
    """PEFTBENCH_CALIBRATION, a file or a folder, or a folder in the user's configuration folder."""
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    return os.environ.get("PEFTBENCH_CALIBRATION") or os.path.join(home, "peftbench", "calibrations")
