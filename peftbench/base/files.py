"""Files that people name: regular ones of a bounded size, read as text in UTF-8."""

from __future__ import annotations

import os
import stat
from typing import IO

from peftbench.base.errors import CatalogError

MOST_BYTES = 10_000_000
"""A config.json has a few kilobytes; weights saved as .json or a wrong path should not fill the memory."""


def open_regular(path: str | os.PathLike[str], hint: str, pipes: bool = False) -> IO[bytes]:
    """A file open for reading. Raises CatalogError at once for a folder, a pipe, a device, and what cannot be read.

    `hint` says what to pass instead. Where `pipes` are taken, one that nobody writes to is empty.
    """
    try:
        number = open_at_once(path, os.O_RDONLY)
    except (OSError, ValueError) as error:
        raise unreadable(path, error, hint) from None
    mode = os.fstat(number).st_mode
    if not (stat.S_ISREG(mode) or (pipes and stat.S_ISFIFO(mode))):
        os.close(number)
        kind = "folder" if stat.S_ISDIR(mode) else "pipe" if stat.S_ISFIFO(mode) else "device"
        raise CatalogError(f"{os.fspath(path)} is a {kind}, not a file.", hint)
    return open(number, "rb")


def open_at_once(path: str | os.PathLike[str], flags: int) -> int:
    """An opener for `open`: of a pipe with nobody at its other end, too, which is empty then, or raises OSError."""
    number = os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o666)
    if hasattr(os, "O_NONBLOCK"):
        os.set_blocking(number, True)
    return number


def read_text(path: str | os.PathLike[str], hint: str, most_bytes: int = MOST_BYTES) -> str:
    """The whole text, without a byte order mark, its lines ended by "\\n"; raises CatalogError as open_regular, and for
    more than `most_bytes` and what is not UTF-8."""
    try:
        with open_regular(path, hint) as file:
            content = file.read(most_bytes + 1)
    except OSError as error:
        raise unreadable(path, error, hint) from None
    if len(content) > most_bytes:
        raise CatalogError(f"{os.fspath(path)} has more than {most_bytes:,} bytes: far too long.", hint)
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        what = f"{os.fspath(path)} is not text in UTF-8: byte {error.start:,} is {content[error.start]:#04x}."
        raise CatalogError(what, hint) from None


def unreadable(path: str | os.PathLike[str], error: Exception, hint: str) -> CatalogError:
    """The error for a file that the system does not give: "cannot read FILE: Permission denied."."""
    why = getattr(error, "strerror", None) or str(error)
    return CatalogError(f"cannot read {os.fspath(path)}: {why}.", hint)
