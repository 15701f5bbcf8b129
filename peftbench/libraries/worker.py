"""The child process that has the real libraries: lines in, lines out, and nothing of it left when it is closed.

Its process group is its own, so that what it may start ends with it. Its pipes are read as they fill and written as
they empty: a child that floods them takes no memory, and one that reads nothing keeps nobody waiting.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO

from peftbench.base.errors import MeasureError

GRACE_S = 5.0
"""How long it may take to end after its last word."""
GLANCE_S = 1.0
"""How often a silent one is looked at: it may have ended and left its pipes to what it started, or have stopped."""
WAIT_S = 0.01
CHUNK = 1 << 16
TAIL = 1 << 13
"""Bytes that are kept of what it writes to stderr."""
WSL = "Use Linux, or WSL on Windows."
_PR_SET_PDEATHSIG = 1


class Worker:
    """A process in a group of its own. `command` is given this process's id as its last argument.

    Raises OSError where the system starts no process, MeasureError where the working directory is gone, and on Windows,
    whose processes have no groups.
    """

    def __init__(self, command: Sequence[str], longest_line: int, environment: Mapping[str, str]) -> None:
        _check_system()
        self._selector = selectors.DefaultSelector()
        self._process = subprocess.Popen(
            [*command, str(os.getpid())], env=_environment(environment), start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.group = self._process.pid
        self._longest_line = longest_line
        self._unsent, self._output, self._errors = bytearray(), bytearray(), b""
        self._searched = 0
        self._silent = False
        """Whether it writes no more."""
        self._ticks, self._moved_s = 0, time.monotonic()
        for pipe, take in ((self._process.stdout, self._take_output), (self._process.stderr, self._take_errors)):
            self.also(_file(pipe), take)
        os.set_blocking(_file(self._process.stdin), False)

    def also(self, file: int, call: Callable[[int], None]) -> None:
        """Call this with the file whenever that can be read while a line is waited for."""
        self._selector.register(file, selectors.EVENT_READ, call)

    def send(self, line: str) -> None:
        """Hand it a line as fast as it reads."""
        if not self._unsent:
            self._selector.register(_file(self._process.stdin), selectors.EVENT_WRITE, self._give)
        self._unsent += line.encode() + b"\n"

    def line(self, until_s: float, idle_s: float | None = None) -> bytes | None:
        """The next line that it writes, without its end; the beginning of one that is too long; None: no more comes.

        Raises TimeoutError at `until_s`, of time.monotonic(), and when it has computed nothing for `idle_s`.
        """
        self._moved_s = time.monotonic()
        while (end := self._output.find(b"\n", self._searched)) < 0:
            self._searched = len(self._output)
            if self._searched > self._longest_line:
                return bytes(self._output)
            if self._silent:
                return None
            self._pass(until_s, idle_s)
        line = bytes(self._output[:end])
        del self._output[: end + 1]
        self._searched = 0
        return line

    def ends(self) -> bool:
        """Whether it ends by itself, soon after its last word; only its stderr is still listened to."""
        for key in tuple(self._selector.get_map().values()):
            if key.data != self._take_errors:
                self._selector.unregister(key.fd)
        until_s = time.monotonic() + GRACE_S
        while self._process.poll() is None and time.monotonic() < until_s:
            self._handle(WAIT_S)
        while self._handle(0.0) and time.monotonic() < until_s:
            pass
        return self._process.returncode is not None

    def kill(self) -> None:
        """End the whole group. One that the kernel holds, as in a driver that hangs, is left to it."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.group, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE_S)

    def close(self) -> None:
        """Kill it and let go of its pipes."""
        self.kill()
        self._selector.close()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]

    @property
    def code(self) -> int:
        """How it ended, as subprocess has it: negative for a signal."""
        return self._process.returncode or 0

    @property
    def last_words(self) -> str:
        """The last line of its stderr, at most 200 characters of it."""
        lines = self._errors.decode("utf-8", "replace").strip().splitlines()
        return lines[-1][:200] if lines else ""

    # ── its pipes ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _pass(self, until_s: float, idle_s: float | None) -> None:
        """Handle what its pipes are ready for. What came in time counts, even where it is looked at late."""
        left_s = until_s - time.monotonic()
        before = len(self._output)
        ready = self._handle(min(max(left_s, 0.0), GLANCE_S))
        if len(self._output) > before or self._silent:
            return
        if left_s <= 0 or (idle_s is not None and not self._moves(idle_s)):
            raise TimeoutError
        if not ready and self._process.poll() is not None:
            self._silent = True

    def _handle(self, patience_s: float) -> bool:
        """Whether any of the pipes was ready."""
        ready = self._selector.select(patience_s)
        for key, _ in ready:
            key.data(key.fd)
        return bool(ready)

    def _moves(self, idle_s: float) -> bool:
        """Whether it has computed anything in the last so many seconds."""
        ticks = _ticks(self.group)
        if ticks is None or ticks != self._ticks:
            self._ticks, self._moved_s = ticks or 0, time.monotonic()
        return time.monotonic() - self._moved_s <= idle_s

    def _take_output(self, file: int) -> None:
        read = os.read(file, CHUNK)
        self._output += read
        if not read:
            self._silent = True
            self._selector.unregister(file)

    def _take_errors(self, file: int) -> None:
        read = os.read(file, CHUNK)
        self._errors = (self._errors + read)[-TAIL:]
        if not read:
            self._selector.unregister(file)

    def _give(self, file: int) -> None:
        try:
            sent = os.write(file, self._unsent[:CHUNK])
        except BlockingIOError:
            return
        except BrokenPipeError:  # it is dead: how it ended tells why
            sent = len(self._unsent)
        del self._unsent[:sent]
        if not self._unsent:
            self._selector.unregister(file)


def signal_name(number: int) -> str:
    """"SIGSEGV", or "signal 35" where it has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def end_by_signal(number: int) -> str:
    """"SIGKILL, as the kernel does where memory runs out"."""
    return signal_name(number) + (", as the kernel does where memory runs out" if number == signal.SIGKILL else "")


def die_with_parent() -> None:
    """To be called by the worker: should its parent be killed, nothing of it may stay. Linux only; elsewhere a closed
    pipe has to do."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != int(sys.argv[-1]):  # it is dead already
            os._exit(1)


def _check_system() -> None:
    if sys.platform == "win32":
        raise MeasureError("the real libraries are not run on Windows itself.", WSL)
    try:
        os.getcwd()
    except FileNotFoundError:
        raise MeasureError("the working directory is gone.", "Change to one that exists, as by: cd ~") from None


def _environment(changes: Mapping[str, str]) -> dict[str, str]:
    """The child finds the package where this process found it."""
    home = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    path = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH", ""))))
    return {**os.environ, "PYTHONPATH": path, **changes}


def _file(pipe: IO[bytes] | None) -> int:
    assert pipe is not None
    return pipe.fileno()


def _ticks(process: int) -> int | None:
    """Ticks of the clock that the process has computed; None where the system does not say."""
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])  # utime and stime
    except (OSError, ValueError, IndexError):
        return None
