"""The child process of a dry run: reads a workload a line, writes progress and a trace a line, until its input ends.

The process patches torch and may be ended by it at any time, which is why it is a process: see `runner.py`.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from typing import Any, TextIO

from peftbench.base.errors import PeftbenchError
from peftbench.dryrun.trace.trace import trace_to_json
from peftbench.dryrun.workload import Workload, workload_from_json
from peftbench.libraries.refusal import Refused
from peftbench.libraries.worker import die_with_parent

PROGRESS_EVERY_S = 0.1


def main() -> None:
    """Serve until stdin ends; what libraries print goes to stderr, so that stdout holds answers only."""
    die_with_parent()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    sys.stdin.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    prepared = False
    for line in sys.stdin:
        workload = workload_from_json(json.loads(line))
        _send(answers, _answer(workload, prepared, answers))
        prepared = True
    os._exit(0)  # threads of autograd's may abort an interpreter that shuts down around them


def _answer(workload: Workload, prepared: bool, answers: TextIO) -> dict[str, Any]:
    """All workloads of a process are for one device: autograd counts the devices once."""
    try:
        if not prepared:
            _prepare(workload.device)
        from peftbench.dryrun.child.run import dry_run

        return {"trace": trace_to_json(dry_run(workload, _Progress(answers)))}
    except PeftbenchError as error:
        kind = "refused" if isinstance(error, Refused) else "unavailable"
        return {kind: {"what": error.what, "hint": error.hint}}
    except Exception as error:  # whatever the libraries raise is reported, with its place, by the parent
        trail = traceback.format_exc()
        return {"failed": {"what": f"{type(error).__name__}: {error}", "traceback": trail}}


def _prepare(device: str) -> None:
    """Import the libraries first: those that find a card at import would try to use it."""
    import torch

    def as_it_is(model: Any = None, **_: Any) -> Any:
        return model if model is not None else lambda function: function

    torch.compile = as_it_is  # which bitsandbytes decorates functions with: loading the compiler takes a second
    import bitsandbytes  # noqa: F401
    import peft  # noqa: F401
    import transformers

    transformers.logging.set_verbosity_error()
    from peftbench.dryrun.fake import on_card

    {"cuda": on_card.answer_as_card, "cpu": on_card.answer_as_cpu, "host": on_card.answer_as_host}[device]()


class _Progress:
    """Sends the share that is done, ten times a second at most."""

    def __init__(self, answers: TextIO) -> None:
        self.answers = answers
        self.sent_s = 0.0

    def __call__(self, share: float) -> None:
        now = time.monotonic()
        if now - self.sent_s > PROGRESS_EVERY_S:
            self.sent_s = now
            _send(self.answers, {"progress": share})


_LOCK = threading.Lock()
"""Layers also run in autograd's threads."""


def _send(answers: TextIO, value: dict[str, Any]) -> None:
    with _LOCK:
        answers.write(json.dumps(value) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
