"""Where files are kept that can be made again: traces of dry runs, and the model that is trained on the spot."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(part: str) -> Path:
    """PEFTBENCH_CACHE as it is, else the folder `part` in the user's cache folder."""
    named = os.environ.get("PEFTBENCH_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "peftbench" / part
