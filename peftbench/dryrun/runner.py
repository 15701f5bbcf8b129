"""Run workloads in a child process, and turn whatever becomes of it into a trace or one clear message.

The child patches torch's C++ objects so that they report a card. Should that ever end it with a signal, the parent
lives on and says so.
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

    def __exit__(self, *_: object) -> None:
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
        assert self._child is not None and self._child.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the child is dead: _receive says of what
            self._child.stdin.write(json.dumps(workload_to_json(workload)) + "\n")
            self._child.stdin.flush()
        while "progress" in (answer := self._receive()):
            progress(float(answer["progress"]))
        return _trace(answer)

    def _start(self, device: str) -> None:
        """Start a child for this device: autograd counts the devices of a process once.

        It finds the package where this process found it, and computes the little that it computes in one thread.
        """
        if self._child is not None and self._device == device:
            return
        self.close()
        self._device = device
        home = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        path = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH", ""))))
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the child)
        self._child = subprocess.Popen(
            [sys.executable, "-m", MODULE],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
            text=True, encoding="utf-8",
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        )  # fmt: skip

    def _receive(self) -> Mapping[str, Any]:
        assert self._child is not None and self._child.stdout is not None
        with _killed_after(self._child, self._timeout_s) as late:
            line = self._child.stdout.readline()
        if not line.endswith("\n"):
            if not late.is_set():
                raise self._error_from_exit()
            self.close()
            raise DryRunError(f"the dry run gave no sign of life for {self._timeout_s:g} s and was ended.", REPORT)
        answer: Mapping[str, Any] = json.loads(line)
        return answer

    def _error_from_exit(self) -> DryRunError:
        assert self._child is not None and self._errors is not None
        code = self._child.wait()
        self._errors.seek(0)
        last = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        self.close()
        what = f"was ended by {_signal_name(-code)}" if code < 0 else f"stopped with exit code {code}"
        hint = f"Its last line: {last[-1][:200]}. {REPORT}" if last else REPORT
        return DryRunError(f"the dry run's process {what}.", hint)


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


def _signal_name(number: int) -> str:
    import signal

    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


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
