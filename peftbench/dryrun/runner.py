"""Run workloads in a child process, and turn whatever becomes of it into a trace or one clear message.

The child patches torch's C++ objects to be told that there is a card. Should that ever end it with a signal, the
parent lives on and says so.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import IO, Any

from peftbench.base.errors import PeftbenchError, install_hint
from peftbench.dryrun.trace.trace import Trace, trace_from_json
from peftbench.dryrun.workload import Workload, workload_to_json
from peftbench.libraries.refusal import Refused

REPORT = "Leave out --dry-run for the estimate, and please report this."
MODULE = "peftbench.dryrun.worker"
TIMEOUT_S = 600.0
"""The longest silence of the child; it tells its progress at every layer."""

Progress = Callable[[float], None]


class DryRunError(PeftbenchError):
    """The dry run itself failed: libraries are missing, fake CUDA does not hold, or the child process died."""


class DryRunner:
    """One child process for any number of workloads; a context manager that ends it."""

    def __init__(self, timeout_s: float = TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._child: subprocess.Popen[str] | None = None
        self._device = ""
        self._errors: IO[bytes] | None = None

    def __enter__(self) -> DryRunner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trail: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the child; after an interrupt it is killed, for it may be deep in a run."""
        if self._child is None:
            return
        child, self._child = self._child, None
        with contextlib.suppress(OSError):
            child.stdin.close()  # type: ignore[union-attr]
        try:
            child.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        child.stdout.close()  # type: ignore[union-attr]
        if self._errors:
            self._errors.close()

    def run(self, workload: Workload, progress: Progress = lambda share: None) -> Trace:
        """Trace one workload. `progress` is given the share that is done.

        Raises Refused where the libraries refuse the workload, DryRunError for everything else.
        """
        self._start(workload.device)
        self._send(workload)
        while True:
            answer = self._receive()
            if "progress" in answer:
                progress(float(answer["progress"]))
            else:
                return _trace(answer)

    def _start(self, device: str) -> None:
        """A child for this device: autograd counts the devices of a process once."""
        if self._child is not None and self._device == device:
            return
        self.close()
        self._device = device
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the child)
        self._child = subprocess.Popen(
            [sys.executable, "-m", MODULE],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
            text=True, encoding="utf-8", env=_environment(),
        )  # fmt: skip

    def _send(self, workload: Workload) -> None:
        assert self._child is not None and self._child.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the child is dead: _receive says of what
            self._child.stdin.write(json.dumps(workload_to_json(workload)) + "\n")
            self._child.stdin.flush()

    def _receive(self) -> Mapping[str, Any]:
        assert self._child is not None and self._child.stdout is not None
        with _killed_after(self._child, self._timeout_s) as late:
            line = self._child.stdout.readline()
        if late.is_set() and not line.endswith("\n"):
            self.close()
            raise DryRunError(f"the dry run gave no sign of life for {self._timeout_s:g} s and was ended.", REPORT)
        if not line.endswith("\n"):
            raise self._error_from_exit()
        answer: Mapping[str, Any] = json.loads(line)
        return answer

    def _error_from_exit(self) -> DryRunError:
        assert self._child is not None and self._errors is not None
        code = self._child.wait()
        self._errors.seek(0)
        last = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        self.close()
        if code < 0:
            what = f"the dry run's process was ended by {_signal_name(-code)}."
            return DryRunError(what, _because(last) or REPORT)
        return DryRunError(f"the dry run's process stopped with exit code {code}.", _because(last) or REPORT)


@contextlib.contextmanager
def _killed_after(child: subprocess.Popen[str], timeout_s: float) -> Iterator[threading.Event]:
    """Not every system can read a pipe with a time limit: a thread kills the child, which ends the reading."""
    late = threading.Event()

    def kill() -> None:
        late.set()
        child.kill()

    timer = threading.Timer(timeout_s, kill)
    timer.daemon = True
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()


def _environment() -> dict[str, str]:
    """The child finds the package where this process found it, and starts one thread for the little it computes."""
    home = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    path = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH", ""))))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def _signal_name(number: int) -> str:
    import signal

    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _because(lines: list[str]) -> str:
    return f"Its last line: {lines[-1][:200]}. {REPORT}" if lines else ""


def _trace(answer: Mapping[str, Any]) -> Trace:
    if "trace" in answer:
        return trace_from_json(answer["trace"])
    if "refused" in answer:
        raise Refused(answer["refused"]["what"], answer["refused"]["hint"])
    if "unavailable" in answer:
        raise DryRunError(answer["unavailable"]["what"], answer["unavailable"]["hint"])
    what = str(answer["failed"]["what"]).strip().splitlines()[0][:300]
    if what.startswith("ModuleNotFoundError"):
        missing = f"a dry run needs the real libraries: {what.partition(': ')[2]}."
        raise DryRunError(missing, install_hint(extra="bench"))
    place = _place(str(answer["failed"]["traceback"]))
    raise DryRunError(f"the step cannot be run on fake tensors: {what}", f"It stopped in {place}. {REPORT}")


def _place(traceback: str) -> str:
    """The innermost line of the model's or adapter's own code."""
    lines = [line.strip() for line in traceback.splitlines() if line.strip().startswith("File ")]
    own = [line for line in lines if "/transformers/models/" in line or "/peft/" in line]
    chosen = (own or lines or [""])[-1]
    path, _, rest = chosen.removeprefix('File "').partition('"')
    return f"{os.path.join(*path.split(os.sep)[-3:])}{rest}" if path else "an unknown place"
