"""Where inputs are tried: a folder of its own for each, no network, no child that imports torch, no endless hang."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

from fuzz.case import Case
from small_traces import inference_run, training_run

from peftbench.dryrun.trace.trace import Trace
from peftbench.dryrun.workload import Workload
from peftbench.inputs.recipe import TrainingSpec

LONGEST_S = 10
"""What a question may compute, in seconds of processor time: other load on the machine makes no fault."""
WAITING_S = 45
"""What it may take on the clock: one that waits for a file computes nothing."""
WORKER = """
import json, sys
sys.stdin.readline()
for event in (
    {"device": {"threads": 1}}, {"mark": "load"}, {"peak": [0, "load", 900]}, {"mark": "backward pass"},
    {"peak": [0, "backward pass", 5000]}, {"step": 0, "loss": 2.5, "step_s": 0.5},
    {"done": {"alloc_retries": None, "trainable_parameters": 10, "num_parameters": 100}},
):
    print(json.dumps(event), flush=True)
"""
"""A worker of `run` that measures nothing."""


class Hang(BaseException):
    """A question computed or waited too long."""


def _no_network(*_: object) -> str:
    raise OSError("there is no network")


def _traced(_: object, workload: Workload, *__: Any) -> Trace:
    trace = training_run() if isinstance(workload.recipe, TrainingSpec) else inference_run()
    trace.facts["full_num_parameters"] = 1000
    return trace


@contextmanager
def no_children() -> Iterator[None]:
    """Dry runs give a small trace that was made by hand, runs a small record, the Hub nothing.

    click would keep every input's streams with all that was written to them, 60 KB each: its cache holds them weakly
    as keys, but also as values.
    """
    with (
        patch("peftbench.dryrun.runner.DryRunner.run", _traced),
        patch("peftbench.measure.child_process.COMMAND", (sys.executable, "-I", "-S", "-c", WORKER)),
        patch("peftbench.catalog.hub._download", _no_network),
        patch("click.utils._default_text_stdout", lambda: sys.stdout),
        patch("click.utils._default_text_stderr", lambda: sys.stderr),
    ):
        yield


@contextmanager
def folder_of(case: Case) -> Iterator[dict[str, str]]:
    """Go to a new folder with the files of the case and the special ones; gives the environment to try it in."""
    before = os.getcwd()
    with TemporaryDirectory(prefix="fuzz-") as place:
        os.chdir(place)
        try:
            _special_files(case)
            for name, content in case.files:
                Path(name).parent.mkdir(parents=True, exist_ok=True)
                Path(name).write_bytes(content)
            yield {
                "HOME": place, "XDG_CONFIG_HOME": "", "XDG_CACHE_HOME": "", "PEFTBENCH_CACHE": f"{place}/cache",
                "PEFTBENCH_CALIBRATION": "none", "COLUMNS": "80", "NO_COLOR": "1", **dict(case.environment),
            }  # fmt: skip
        finally:
            os.chdir(before)


def _special_files(case: Case) -> None:
    """Those that the case names."""
    texts = (*case.words, *(value for _, value in case.environment))
    named = {part for word in texts for part in word.replace("=", "/").split("/")}
    if "fifo" in named:
        os.mkfifo("fifo")
    if "folder" in named:
        os.mkdir("folder")
    if "loop" in named:
        os.symlink("loop", "loop")
    if "broken-link" in named:
        os.symlink("nowhere", "broken-link")
    for name, mode in (("unreadable", 0), ("empty", 0o644)):
        if name in named:
            Path(name).touch(mode)


@contextmanager
def limited() -> Iterator[None]:
    """Raise Hang within it after LONGEST_S or WAITING_S, where the system has such alarms; else at its end."""
    began_s = time.process_time()
    with _alarm("SIGALRM", "ITIMER_REAL", WAITING_S), _alarm("SIGPROF", "ITIMER_PROF", LONGEST_S):
        yield
    if time.process_time() - began_s > LONGEST_S:
        raise Hang


@contextmanager
def _alarm(signal_name: str, timer_name: str, after_s: float) -> Iterator[None]:
    number, timer = getattr(signal, signal_name, None), getattr(signal, timer_name, None)
    if number is None or timer is None:
        yield
        return

    def ring(*_: object) -> None:
        raise Hang

    before = signal.signal(number, ring)
    signal.setitimer(timer, after_s)
    try:
        yield
    finally:
        signal.setitimer(timer, 0)
        signal.signal(number, before)
