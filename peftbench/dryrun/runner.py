"""Run workloads in a child process, and turn whatever becomes of it into a trace or one clear message.

The child patches torch's C++ objects so that they report a card. Should that ever end it with a signal, the parent
lives on and says so.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from peftbench.base.errors import MeasureError, PeftbenchError, install_hint
from peftbench.base.units import LONGEST_S
from peftbench.dryrun.trace.trace import UNREADABLE, Trace, trace_from_json
from peftbench.dryrun.workload import Workload, workload_to_json
from peftbench.libraries.refusal import Refused
from peftbench.libraries.worker import Worker, end_by_signal

REPORT = "Leave out --dry-run for the estimate, and please report this."
MODULE = "peftbench.dryrun.worker"
TIMEOUT_S = 600.0
"""The longest silence of the child. It tells its progress at every layer; the longest of all models of the catalogue
is 24 s, in the optimizer step of Qwen3-235B on half a core."""
IDLE_SHARE = 0.1
"""The share of it after which a child is ended that does not even compute: it waits for what will not come."""
LONGEST_ANSWER = 1 << 28
"""Bytes of all that it writes to one question; the largest trace of the catalogue's models has 5 million."""
KINDS = ("progress", "trace", "refused", "unavailable", "failed")
"""What its messages are, each an object of one key."""

_NO_MEMORY = ("MemoryError", "bad_alloc", "Cannot allocate memory", "not enough memory", "can't start new thread")
"""How Python, C++ and torch say that the system gives no more."""

Progress = Callable[[float], None]


class DryRunError(PeftbenchError):
    """The dry run itself failed: libraries are missing, fake CUDA does not hold, or the child process died."""


class DryRunner:
    """One child process for any number of workloads; a context manager that ends it."""

    def __init__(self) -> None:
        self._worker: Worker | None = None
        self._device = ""

    def __enter__(self) -> DryRunner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child, however deep in a run it is."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def run(
        self, workload: Workload, progress: Progress = lambda share: None, timeout_s: float = TIMEOUT_S
    ) -> Trace:  # fmt: skip
        """Trace one workload. `progress` is given the share that is done; `timeout_s` is the longest silence.

        Raises Refused where the libraries refuse the workload, DryRunError for everything else.
        """
        worker = self._worker_for(workload.device)
        try:
            worker.send(json.dumps(workload_to_json(workload)))
            answer = _answer(worker, progress, timeout_s)
        except BaseException:  # an interrupt too: the next question must not get the answer to this one
            self.close()
            raise
        return _trace(answer)

    def _worker_for(self, device: str) -> Worker:
        """A child for this device: autograd counts the devices of a process once. It computes in one thread."""
        if self._worker is None or self._device != device:
            self.close()
            environment = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
            try:
                self._worker = Worker((sys.executable, "-m", MODULE), LONGEST_ANSWER, environment)
            except MeasureError as error:
                raise DryRunError(error.what, error.hint) from None
            self._device = device
        return self._worker


# ── what the child says ─────────────────────────────────────────────────────────────────────────────────────────────


def _answer(worker: Worker, progress: Progress, timeout_s: float) -> Mapping[str, Any]:
    """Its last word on the question, with progress passed on until then."""
    taken = 0
    while taken <= LONGEST_ANSWER:
        line = _line(worker, timeout_s)
        taken += len(line)
        answer = _read(line)
        if "progress" not in answer:
            return answer
        progress(answer["progress"])
    raise DryRunError("the dry run's process wrote without an end and was ended.", REPORT)


def _line(worker: Worker, timeout_s: float) -> bytes:
    began_s = time.monotonic()
    try:
        line = worker.line(began_s + timeout_s, IDLE_SHARE * timeout_s)
    except TimeoutError:
        what = f"the dry run gave no sign of life for {time.monotonic() - began_s:.0f} s and was ended."
        longer = f"--timeout {min(2 * timeout_s, LONGEST_S):.10g}"
        hint = f"If this machine is only slow, give it longer: {longer}. Else leave out --dry-run."
        raise DryRunError(what, hint) from None
    if line is None:
        raise _error_from_exit(worker)
    return line


def _read(line: bytes) -> Mapping[str, Any]:
    """One message; raises DryRunError for what no worker writes."""
    try:
        answer: Mapping[str, Any] = json.loads(line)
        (kind,) = answer
        if kind not in KINDS or (kind == "progress" and not 0 <= answer[kind] <= 1):
            raise ValueError
    except UNREADABLE:
        raise _unreadable(line) from None
    return answer


def _trace(answer: Mapping[str, Any]) -> Trace:
    try:
        if "trace" in answer:
            return trace_from_json(answer["trace"])
        raise _error(answer)
    except UNREADABLE:
        raise _unreadable(json.dumps(answer).encode()) from None


def _error(answer: Mapping[str, Any]) -> PeftbenchError:
    if "refused" in answer:
        return Refused(answer["refused"]["what"], answer["refused"]["hint"])
    if "unavailable" in answer:
        return DryRunError(answer["unavailable"]["what"], answer["unavailable"]["hint"])
    what = str(answer["failed"]["what"]).strip().splitlines()[0][:300]
    if what.startswith("ModuleNotFoundError"):
        missing = f"a dry run needs the real libraries: {what.partition(': ')[2]}."
        return DryRunError(missing, install_hint(extra="bench"))
    if any(word in what for word in _NO_MEMORY):
        return DryRunError(f"the dry run ran out of memory: {what}.", "Raise ulimit -v, or leave out --dry-run.")
    place = _place(str(answer["failed"]["traceback"]))
    return DryRunError(f"the step cannot be run on fake tensors: {what}", f"It stopped in {place}. {REPORT}")


def _unreadable(line: bytes) -> DryRunError:
    return DryRunError(f"the dry run's process wrote what cannot be read: {line[:80]!r}.", REPORT)


def _error_from_exit(worker: Worker) -> DryRunError:
    if not worker.ends():
        return DryRunError("the dry run's process closed its output and did not end.", REPORT)
    what = f"was ended by {end_by_signal(-worker.code)}" if worker.code < 0 else f"stopped with exit code {worker.code}"
    hint = f"Its last line: {worker.last_words}. {REPORT}" if worker.last_words else REPORT
    return DryRunError(f"the dry run's process {what}.", hint)


def _place(traceback: str) -> str:
    """The innermost line of the model's or adapter's own code."""
    lines = [line.strip() for line in traceback.splitlines() if line.strip().startswith("File ")]
    own = [line for line in lines if "/transformers/models/" in line or "/peft/" in line]
    chosen = (own or lines or [""])[-1]
    path, _, rest = chosen.removeprefix('File "').partition('"')
    return f"{os.path.join(*path.split(os.sep)[-3:])}{rest}" if path else "an unknown place"
