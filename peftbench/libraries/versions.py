"""Which versions of the libraries are installed; imports none of them."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import metadata

LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes", "accelerate")
"""Those whose code a training step runs."""


def installed_versions(names: Iterable[str] = LIBRARIES) -> dict[str, str]:
    """The versions of these distributions, without those that are not installed."""
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
