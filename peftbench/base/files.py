"""Files that people name: regular ones of a bounded size are read, and written whole or not at all."""

from __future__ import annotations

import _thread
import os
import stat
from contextlib import suppress
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


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file. Where that fails, as on a full disk, or is ended in the middle, what was there before is kept.

    A pipe and a device get the content as it is, and so does a file whose folder takes no new ones. Raises OSError.
    """
    before = _stat(path)
    may_replace = before is None or (stat.S_ISREG(before.st_mode) and os.access(path, os.W_OK))
    if not may_replace or not os.path.basename(path):
        _write(path, content)
        return
    place = os.path.realpath(path)  # a link stays one
    part = os.path.join(os.path.dirname(place), f".{os.getpid()}-{_thread.get_ident()}.part")
    try:
        _write(part, content)
        if before is not None:
            os.chmod(part, stat.S_IMODE(before.st_mode))
        os.replace(part, place)
    except PermissionError:
        _write(path, content)
    finally:
        with suppress(OSError):
            os.unlink(part)


def _stat(path: str | os.PathLike[str]) -> os.stat_result | None:
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def _write(path: str | os.PathLike[str], content: bytes) -> None:
    with open(path, "wb", opener=open_at_once) as file:
        file.write(content)


def unreadable(path: str | os.PathLike[str], error: Exception, hint: str) -> CatalogError:
    """The error for a file that the system does not give: "cannot read FILE: Permission denied."."""
    why = getattr(error, "strerror", None) or str(error)
    return CatalogError(f"cannot read {os.fspath(path)}: {why}.", hint)
