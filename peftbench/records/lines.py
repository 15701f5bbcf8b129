"""Files of JSON lines, read one at a time: a wrong line costs itself only, whatever became of its writer."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import IO, Any, TypeVar

from peftbench.base.documents import Twice, json_value
from peftbench.base.errors import CatalogError, PeftbenchError
from peftbench.base.files import open_regular, unreadable

MOST_LINE_BYTES = 1 << 24
"""A hundred times the longest record."""
MOST_TOLD = 20
"""Lines that are left out with a note of their own; the others are counted."""

Tell = Callable[[str], None]
"""Takes a note about what was left out."""
Found = TypeVar("Found")

_WANTED = "Give a .jsonl file of records, or a folder that has some."


def read_lines(path: str | os.PathLike[str], read: Callable[[Any], Found | None], tell: Tell) -> Iterator[Found]:
    """What `read` makes of the value of each line of a .jsonl file, or of all such files below a folder.

    They come in the order of their names and lines; None is left out in silence. A line that is not JSON, or of which
    `read` raises PeftbenchError, is left out with a note that names its place. In a folder, a file that is empty or
    cannot be read is left out alike. Raises CatalogError where there is no file, and for the one that is named and
    cannot be read.
    """
    left_out, place = LeftOut(tell), Path(path)
    for file in _files(place):
        try:
            empty = yield from _lines_of(file, read, left_out)
        except CatalogError as error:
            if file is place:
                raise
            left_out.tell(f"left out: {error.what}")
        else:
            if empty and file is not place:
                left_out.tell(f"left out: {file} is empty.")
    left_out.end()


def _files(place: Path) -> list[Path]:
    if not place.exists():
        raise CatalogError(f"no such file or folder: {place}.", _WANTED)
    files = sorted(place.rglob("*.jsonl")) if place.is_dir() else [place]
    if not files:
        raise CatalogError(f"{place} holds no .jsonl file.", _WANTED)
    return files


class LeftOut:
    """Tells of the first lines that are left out, and how many more there were."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._told = 0

    def tell(self, text: str) -> None:
        self._told += 1
        if self._told <= MOST_TOLD:
            self._tell(text)

    def end(self) -> None:
        if self._told > MOST_TOLD:
            self._tell(f"{self._told - MOST_TOLD:,} more are left out.")


def _lines_of(file: Path, read: Callable[[Any], Found | None], left_out: LeftOut) -> Generator[Found, None, bool]:
    """Returns whether the file has nothing but blanks."""
    empty = True
    for number, line in enumerate(_lines(file), start=1):
        if line is None or line.strip():
            empty = False
            try:
                found = read(value_of(line))
            except PeftbenchError as error:
                remedy = f" {error.hint}" if "Upgrade" in error.hint else ""
                left_out.tell(f"{file}, line {number}: left out, {error.what}{remedy}")
                continue
            if found is not None:
                yield found
    return empty


def _lines(file: Path) -> Iterator[bytes | None]:
    """Every line with its end, None for one that is too long."""
    with open_regular(file, _WANTED) as opened:
        try:
            yield from whole_lines(opened)
        except OSError as error:
            raise unreadable(file, error, _WANTED) from None


def whole_lines(file: IO[bytes]) -> Iterator[bytes | None]:
    """Every line of a file with its end; None for one of more than MOST_LINE_BYTES, of which no more is kept."""
    while line := file.readline(MOST_LINE_BYTES):
        if len(line) < MOST_LINE_BYTES or line.endswith(b"\n"):
            yield line
            continue
        while (line := file.readline(MOST_LINE_BYTES)) and not line.endswith(b"\n"):
            pass
        yield None


def value_of(line: bytes | None) -> Any:
    """The JSON value of a line. Raises CatalogError."""
    if line is None:
        raise CatalogError(f"it is longer than {MOST_LINE_BYTES:,} bytes.")
    try:
        return json_value(line.decode("utf-8-sig"))
    except Twice as error:
        raise CatalogError(f"{error}.") from None
    except (ValueError, RecursionError):
        unfinished = line.startswith(b"{") and not line.endswith(b"\n")
        raise CatalogError("its writer stopped in the middle of it." if unfinished else "it is not JSON.") from None
