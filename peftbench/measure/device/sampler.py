"""Reads a device at a fixed rate in a thread while a child runs; which device it is, the reader knows.

The clock is time.monotonic() and the pauses are time.sleep(): neither notices when somebody sets the clock of the
machine. (Event.wait() with a timeout does, up to Python 3.10.)
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from peftbench.base.errors import MeasureError
from peftbench.records.curve import COLUMNS, Column, thin
from peftbench.records.run import Sample

PERIOD_S = 0.010
MOST_SAMPLES = 1 << 16
"""Beyond that they are thinned to half: 11 minutes at 100 a second, some 20 MB."""
END_TIMEOUT_S = 10.0
"""A driver whose card fell off the bus may keep a call for minutes."""


class LostDevice(MeasureError):
    """The device or its driver is gone: there is nothing more to read."""


@dataclass(frozen=True)
class Reading:
    """What a device reports at one moment: a Sample without its time."""

    used_bytes: int | None
    process_bytes: int | None
    power_w: float | None = None
    utilization: float | None = None
    temperature_c: float | None = None
    clock_mhz: int | None = None


@dataclass(frozen=True)
class Jitter:
    """Seconds between the beginnings of neighbouring readings, of the last 65,536; the longest is of all."""

    p50_s: float
    p95_s: float
    p99_s: float
    longest_s: float


class Sampler:
    """Reads a device every `period_s` from `with` to the end of the block, in a thread of its own.

    A reader that raises LostDevice ends the sampling and not the block: what was seen stays, `lost` says why. Any
    other error of the reader is raised at the end of the block.
    """

    def __init__(self, read: Callable[[], Reading], period_s: float = PERIOD_S) -> None:
        self._read = read
        self._period_s = period_s
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self._ending = False
        self._samples: list[Sample] = []
        self._peaks: dict[Column, int] = {}
        self._gaps: deque[float] = deque(maxlen=MOST_SAMPLES)
        self._longest_s = 0.0
        self._failure: Exception | None = None
        self.lost: str | None = None
        """Why the device could not be read to the end."""

    def __enter__(self) -> Sampler:
        try:
            self._thread.start()
        except RuntimeError:
            raise MeasureError("the system starts no thread to watch the device in.", "Raise ulimit -u.") from None
        return self

    def __exit__(self, kind: object, error: BaseException | None, trail: object) -> None:
        self._ending = True
        self._thread.join(END_TIMEOUT_S)
        if self._thread.is_alive():
            self.lost = f"the device gave no answer in {END_TIMEOUT_S:g} s."
        if self._failure and error is None:
            raise self._failure

    @property
    def samples(self) -> tuple[Sample, ...]:
        """Every sample so far; of runs with more than MOST_SAMPLES, thinned ones of the beginning."""
        return tuple(self._samples)

    @property
    def jitter(self) -> Jitter | None:
        """How evenly it read; None before the second reading."""
        gaps = sorted(self._gaps)
        if not gaps:
            return None
        p50, p95, p99 = (gaps[int(share * (len(gaps) - 1))] for share in (0.50, 0.95, 0.99))
        return Jitter(p50, p95, p99, self._longest_s)

    def peak(self, column: Column) -> int | None:
        """The highest value of all samples that were ever taken; None where the device reported none."""
        return self._peaks.get(column)

    def _run(self) -> None:
        try:
            self._read_until_the_end()
        except LostDevice as error:
            self.lost = error.what
        except Exception as error:  # a thread has nobody to tell: the end of the block raises it
            self._failure = error

    def _read_until_the_end(self) -> None:
        """At least once, however short the block is."""
        started = due = now = time.monotonic()
        while True:
            self._keep(Sample(now - started, **vars(self._read())))
            due = next_due(due, time.monotonic(), self._period_s)
            time.sleep(max(0.0, due - time.monotonic()))
            if self._ending:
                return
            previous, now = now, time.monotonic()
            self._gaps.append(now - previous)
            self._longest_s = max(self._longest_s, now - previous)

    def _keep(self, sample: Sample) -> None:
        self._samples.append(sample)
        for column in COLUMNS:
            value = getattr(sample, column)
            if value is not None and value >= self._peaks.get(column, value):
                self._peaks[column] = value
        if len(self._samples) > MOST_SAMPLES:
            self._samples = list(thin(self._samples, MOST_SAMPLES // 2))


def next_due(due_s: float, now_s: float, period_s: float) -> float:
    """When to read after a reading that was due at `due_s` and is over now.

    The next moment on the grid of periods that is still to come: lateness adds up to nothing, and what a stall made
    impossible is not made up for.
    """
    return due_s + max(1, int((now_s - due_s) / period_s) + 1) * period_s
