"""Which versions of the libraries are installed; imports none of them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib import metadata

from peftbench.base.errors import install_hint

FIRST_VERSIONS = os.path.join(os.path.dirname(__file__), "first_versions.txt")
"""A model_type and the first transformers from 5.0 that has it, in a line. Source: the wheels of 5.0.0 to 5.24.0.

Those of 5.0.0 may have come in an earlier one.
"""
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


def newer_transformers(architecture: str) -> str:
    """What to install for an architecture that the installed transformers does not have; empty where none has it."""
    with open(FIRST_VERSIONS, encoding="utf-8") as file:
        first = dict(map(str.split, file)).get(architecture)
    wanted = f"'transformers>={first}'"
    return f"transformers {first} has it. {install_hint(wanted)}." if first else ""
