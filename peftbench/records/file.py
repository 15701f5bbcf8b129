"""Files of run records: one JSON object a line, appended as each case ends, readable whatever became of the writer."""

from __future__ import annotations

import errno
import json
import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from peftbench.base.errors import CatalogError, MeasureError
from peftbench.records.comparison import KINDS, ComparisonRecord, comparison_record_from_json, comparison_record_to_json
from peftbench.records.curve import thinned
from peftbench.records.lines import Tell, read_lines, value_of, whole_lines
from peftbench.records.run import RunRecord, record_from_json, record_to_json

Record = RunRecord | ComparisonRecord


class Results(NamedTuple):
    """What files of results hold."""

    runs: tuple[RunRecord, ...]
    comparisons: tuple[ComparisonRecord, ...]
    """Records of suites of kind quality and latency."""


def read_results(path: str | os.PathLike[str], tell: Tell, curves: int | None = None) -> Results:
    """Every record of one .jsonl file, or of all below a folder; lines of published figures are passed over.

    Only the first `curves` runs keep samples, thinned, and marks: they are most of a record. None: all keep theirs as
    they are. Tells of what is left out and raises CatalogError, as read_lines does.
    """
    runs: list[RunRecord] = []
    comparisons: list[ComparisonRecord] = []

    def read(value: Any) -> Record | None:
        if is_published(value):
            return None
        record = record_of(value, curves is None or len(runs) < curves)
        return record if curves is None or not isinstance(record, RunRecord) else thinned(record)

    found: Iterator[Record] = read_lines(path, read, tell)
    for record in found:
        if isinstance(record, RunRecord):
            runs.append(record)
        else:
            comparisons.append(record)
    return Results(tuple(runs), tuple(comparisons))


def record_of(value: Any, curves: bool = True) -> Record:
    """The record that a line holds; raises CatalogError for other values."""
    return comparison_record_from_json(value) if _compares(value) else record_from_json(value, curves)


def is_published(value: object) -> bool:
    """Whether a line is of figures that others published, as check.memory.published reads them."""
    return isinstance(value, dict) and not is_record(value) and ("metric" in value or "measured_bytes" in value)


def is_record(value: object) -> bool:
    """Whether a line is, or was meant to be, of a run or a comparison."""
    return isinstance(value, dict) and ("measurement" in value or _compares(value))


def _compares(value: object) -> bool:
    return isinstance(value, dict) and value.get("kind") in KINDS


BEGINNING = b'{"case": {'
"""Of every line that `append` writes: its keys are sorted."""
_OTHERWISE = "Name another with --out."
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
_NO_SYNC = (errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


class RecordFile:
    """A file that one runner at a time appends records to; a context manager that locks it.

    The lock is the kernel's (flock) and goes with the process, however that ends. A file of something else is refused
    and left as it is.
    """

    def __init__(self, path: str | os.PathLike[str], tell: Tell) -> None:
        self.path = Path(path)
        self._tell = tell
        self._file = -1

    def __enter__(self) -> RecordFile:
        try:
            self._file = self._opened()
            try:
                self._lock()
                self._mend()
            except BaseException:
                os.close(self._file)
                raise
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise MeasureError(f"cannot write {self.path}: {why}.", _OTHERWISE) from None
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def append(self, record: Record) -> None:
        """Write one line, whole or not at all, through to the disk. Raises OSError where the disk is full."""
        value = record_to_json(record) if isinstance(record, RunRecord) else comparison_record_to_json(record)
        line = (json.dumps(value, sort_keys=True, allow_nan=False) + "\n").encode()
        before = os.fstat(self._file).st_size
        try:
            written = os.write(self._file, line)
            if written < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._sync()
        except OSError:
            os.ftruncate(self._file, before)
            raise

    def _sync(self) -> None:
        try:
            os.fsync(self._file)
        except OSError as error:
            if error.errno not in _NO_SYNC:
                raise

    # ── before the first record ─────────────────────────────────────────────────────────────────────────────────────

    def _opened(self) -> int:
        """Raises MeasureError for a folder, a pipe or a device."""
        if self.path.exists() and not self.path.is_file():
            raise MeasureError(f"{self.path} is not a file that records can be appended to.", _OTHERWISE)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)

    def _lock(self) -> None:
        import fcntl

        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                what = f"another run is writing to {self.path}."
                raise MeasureError(what, "Wait for it, or name another file with --out.") from None
            self._tell(f"{self.path}: this filesystem has no locks, so let no other run write to the file.")

    def _mend(self) -> None:
        """A last line without an end is of a writer that was stopped in it: cut it off, or end it where it is whole.

        Raises MeasureError for a file whose first or last line is of something else.
        """
        size = os.fstat(self._file).st_size
        first, last = self._ends()
        damaged = first is not None and first.startswith(BEGINNING)
        if size and (_kind_of(last) == "other" or (_kind_of(first) == "other" and not damaged)):
            what = f"{self.path} holds something else than records of runs, and is left as it is."
            raise MeasureError(what, _OTHERWISE)
        if last is None or last.endswith(b"\n"):
            return
        if _kind_of(last) == "record":
            os.write(self._file, b"\n")
        else:
            os.ftruncate(self._file, size - len(last))
            self._tell(f"{self.path}: cut off {len(last)} bytes of a line whose writer stopped in the middle of it.")

    def _ends(self) -> tuple[bytes | None, bytes | None]:
        """The first and the last line that is not blank; None for one that is far too long, and where there is none."""
        with open(self.path, "rb") as file:
            lines = (line for line in whole_lines(file) if line is None or line.strip())
            first = next(lines, None)
            last = deque(lines, maxlen=1)
        return first, last[0] if last else first


def _kind_of(line: bytes | None) -> str:
    """What a line is: a "record", the beginning of one whose writer was "stopped" in it, or something "other"."""
    try:
        return "record" if line and is_record(value_of(line)) else "other"
    except CatalogError:
        if line is None or line.endswith(b"\n"):
            return "other"
        return "stopped" if line.startswith(BEGINNING) or BEGINNING.startswith(line) else "other"
