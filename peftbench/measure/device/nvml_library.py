"""Opens NVML through nvidia-ml-py, and says what stands in the way where it cannot be opened."""

from __future__ import annotations

from importlib import metadata
from typing import Any

from peftbench.base.errors import MeasureError


def open_nvml(instead: str) -> Any:
    """The module pynvml after nvmlInit(): whoever asked calls its nvmlShutdown().

    Raises MeasureError whose hint ends with `instead`: what else can be typed.
    """
    pynvml = _import_pynvml(instead)
    try:
        pynvml.nvmlInit()
    except Exception as error:  # another module of this name may fail in any way
        raise nvml_failed(error, instead) from None
    return pynvml


def _import_pynvml(instead: str) -> Any:
    try:
        import pynvml
    except ImportError:
        raise MeasureError(
            "cannot ask for the card in this machine: nvidia-ml-py is not installed.",
            f"With an NVIDIA card: pip install nvidia-ml-py. {instead}",
        ) from None
    return pynvml


def nvml_failed(error: Exception, instead: str) -> MeasureError:
    """What an error of pynvml means to a user; the unofficial distribution of that name is told apart."""
    if is_shadowed():
        return MeasureError(
            f"the unofficial distribution `pynvml` stands in the way of nvidia-ml-py ({error}).",
            f"pip uninstall pynvml && pip install --force-reinstall nvidia-ml-py. {instead}",
        )
    return MeasureError(f"found no usable NVIDIA card in this machine (NVML: {error}).", instead)


def is_shadowed() -> bool:
    """Before version 12 the distribution `pynvml` had a module of its own; now it uses nvidia-ml-py."""
    try:
        return int(metadata.version("pynvml").split(".")[0]) < 12
    except (metadata.PackageNotFoundError, ValueError):
        return False


def text(name: str | bytes) -> str:
    """Older releases of nvidia-ml-py return bytes."""
    return name.decode() if isinstance(name, bytes) else name
