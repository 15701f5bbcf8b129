"""Files of run records: one JSON object a line, appended as each case ends, readable whatever became of the writer."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from peftbench.base.errors import CatalogError, MeasureError
from peftbench.records.comparison import KINDS, ComparisonRecord, comparison_record_from_json, comparison_record_to_json
from peftbench.records.run import RunRecord, record_from_json, record_to_json

Tell = Callable[[str], None]
"""Takes a note about what was left out."""

_WANTED = "Give a .jsonl file that `peftbench run` wrote, or a folder that has some."


class Results(NamedTuple):
    """What files of results hold."""

    runs: tuple[RunRecord, ...]
    comparisons: tuple[ComparisonRecord, ...]
    """Records of suites of kind quality and latency."""


def read_results(path: str | os.PathLike[str], tell: Tell) -> Results:
    """Every record of one .jsonl file, or of all below a folder, in the order of their names and lines.

    A line that cannot be read is reported and left out: the others are still measurements. Raises CatalogError where
    there is no file, and where a newer peftbench wrote it.
    """
    found = [record for file in record_files(path) for record in _read_file(file, tell)]
    return Results(
        tuple(record for record in found if isinstance(record, RunRecord)),
        tuple(record for record in found if isinstance(record, ComparisonRecord)),
    )


def record_files(path: str | os.PathLike[str]) -> tuple[Path, ...]:
    """The .jsonl files that a path stands for. Raises CatalogError where there are none."""
    place = Path(path)
    if not place.exists():
        raise CatalogError(f"no such file or folder: {place}.", _WANTED)
    files = tuple(sorted(place.rglob("*.jsonl"))) if place.is_dir() else (place,)
    if not files:
        raise CatalogError(f"{place} holds no .jsonl file.", _WANTED)
    return files


def holds_records(file: Path) -> bool:
    """Whether a file has a line of a run or comparison of peftbench, and not published figures."""
    try:
        with open(file, encoding="utf-8", errors="replace") as lines:
            return any(_is_record(line) for line in lines)
    except OSError as error:
        raise CatalogError(f"cannot read {file}: {error.strerror}.", _WANTED) from None


def _is_record(line: str) -> bool:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and ("measurement" in value or _compares(value))


def _compares(value: object) -> bool:
    return isinstance(value, dict) and value.get("kind") in KINDS


def _read_file(file: Path, tell: Tell) -> Iterator[RunRecord | ComparisonRecord]:
    try:
        text = file.read_bytes().decode("utf-8", "replace")
    except OSError as error:
        raise CatalogError(f"cannot read {file}: {error.strerror}.", _WANTED) from None
    lines = text.split("\n")
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield from _read_line(line, f"{file}, line {number}", number == len(lines), tell)


def _read_line(line: str, where: str, unfinished: bool, tell: Tell) -> Iterator[RunRecord | ComparisonRecord]:
    try:
        value = json.loads(line)
        yield comparison_record_from_json(value) if _compares(value) else record_from_json(value)
    except (ValueError, RecursionError):
        why = "its writer stopped in the middle of it" if unfinished else "it is not JSON"
        tell(f"{where}: left out, {why}.")
    except CatalogError as error:
        if "Upgrade" in error.hint:
            raise CatalogError(f"{where}: {error.what}", error.hint) from None
        tell(f"{where}: left out, {error.what}")


class RecordFile:
    """A file that one runner at a time appends records to; a context manager that locks it.

    The lock is the kernel's (flock) and goes with the process, however that ends.
    """

    def __init__(self, path: str | os.PathLike[str], tell: Tell) -> None:
        self.path = Path(path)
        self._tell = tell
        self._file = -1

    def __enter__(self) -> RecordFile:
        import fcntl

        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise MeasureError(f"cannot write {self.path}: {error.strerror}.", "Name another with --out.") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            what = f"another run is writing to {self.path}."
            raise MeasureError(what, "Wait for it, or name another file with --out.") from None
        self._mend()
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def append(self, record: RunRecord | ComparisonRecord) -> None:
        """Write one line, whole or not at all, through to the disk. Raises OSError where the disk is full."""
        value = record_to_json(record) if isinstance(record, RunRecord) else comparison_record_to_json(record)
        line = (json.dumps(value, sort_keys=True, allow_nan=False) + "\n").encode()
        before = os.fstat(self._file).st_size
        try:
            written = os.write(self._file, line)
            if written < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, before)
            raise

    def _mend(self) -> None:
        """A last line without an end is of a writer that was stopped in it: cut it off, or end it where it is whole."""
        content = self.path.read_bytes()
        start = content.rfind(b"\n") + 1
        last = content[start:]
        if not last:
            return
        if _is_record(last.decode("utf-8", "replace")):
            os.write(self._file, b"\n")
        else:
            os.ftruncate(self._file, start)
            self._tell(f"{self.path}: cut off {len(last)} bytes of a line whose writer stopped in the middle of it.")
