"""The child process of a measurement: reads one case from stdin, runs it, writes an event a line.

It is a process so that it may die: of memory, of a signal, of a bug in a library. What it wrote until then counts.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TextIO

from peftbench.base.errors import MeasureError, PeftbenchError
from peftbench.inputs.case import Case, case_from_json
from peftbench.inputs.comparison import SHIPPED_MODELS, ComparisonCase, QualityCase, comparison_from_json
from peftbench.inputs.recipe import TrainingSpec
from peftbench.libraries.worker import die_with_parent
from peftbench.measure.device.environment import described_by_torch
from peftbench.memory import Phase
from peftbench.records.environment import Outcome, is_out_of_memory

Send = Callable[[dict[str, Any]], None]
MESSAGE_LENGTH = 300
"""Characters that are kept of an error."""


def main() -> None:
    """Run the case; what libraries print goes to stderr, so that stdout holds events only."""
    die_with_parent()
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    asked = json.loads(sys.stdin.readline())
    case = (case_from_json if asked["task"] in ("training", "inference") else comparison_from_json)(asked)
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if not _may_fetch(case):
        os.environ["HF_HUB_OFFLINE"] = "1"
    _send(events, _measured(case, events))
    events.close()
    os._exit(0)  # threads of the libraries may abort an interpreter that shuts down around them


ENVIRONMENT = {
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_DEACTIVATE_ASYNC_LOAD": "1",  # the profiler sees the allocations of its own thread
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONWARNINGS": "ignore",
}


def _may_fetch(case: Case | ComparisonCase) -> bool:
    """Only a quality case that names a model or a text of the Hub; all others run where there is no network."""
    if not isinstance(case, QualityCase):
        return False
    on_the_hub = case.model not in SHIPPED_MODELS and not os.path.isdir(case.model)
    return on_the_hub or case.text == "wikitext" or not all(map(os.path.isfile, case.tasks))


def _measured(case: Case | ComparisonCase, events: TextIO) -> dict[str, Any]:
    """Run the case; returns the last event, whatever happened."""
    try:
        return {"done": _run(case, partial(_send, events))}
    except PeftbenchError as error:
        return _failed(Outcome.ERROR, f"{error.what} {error.hint}")
    except Exception as error:  # the libraries raise anything; each is an outcome
        traceback.print_exc()
        name = "" if type(error) is RuntimeError else f"{type(error).__name__}: "
        return _failed(Outcome.OOM if is_out_of_memory(error) else Outcome.ERROR, f"{name}{error}")


def _run(case: Case | ComparisonCase, send: Send) -> Mapping[str, Any]:
    """The steps of training, the rounds of generation, or every variant of a comparison; returns what there is to say
    at the end."""
    import torch
    from transformers import logging, set_seed

    logging.set_verbosity_error()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    set_seed(case.seed)
    send({"device": _device(case)})
    if isinstance(case, Case):
        return _steps(case, send)
    if isinstance(case, QualityCase):
        from peftbench.measure.quality.compare import compare_quality

        return compare_quality(case, send)
    from peftbench.measure.latency.compare import compare_latency

    return compare_latency(case, send)


def _steps(case: Case, send: Send) -> Mapping[str, Any]:
    import peft  # noqa: F401  (its code is no part of what the case may take)
    import torch

    from peftbench.measure.child.model import base_weights, build, parameters_of
    from peftbench.measure.child.steps import Steps

    _limit_memory(case)
    steps = Steps(case, send)
    steps.mark(Phase.LOAD)
    model = build(case)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    if isinstance(case.recipe, TrainingSpec):
        from peftbench.measure.child.train import train

        train(model, case, steps)
    else:
        from peftbench.measure.child.generate import generate

        generate(model, case, steps)
    retries = torch.cuda.memory_stats()["num_alloc_retries"] if case.device == "cuda" else None
    parameters = parameters_of(base_weights(case))
    return {"alloc_retries": retries, "trainable_parameters": trained, "num_parameters": parameters}


def _device(case: Case | ComparisonCase) -> dict[str, Any]:
    """What torch says of the device. Raises MeasureError where it cannot use it."""
    import torch

    if case.device == "cuda" and not torch.cuda.is_available():
        what = f"torch {torch.__version__} finds no CUDA device here."
        raise MeasureError(what, "Install a CUDA build of torch, or run on a CPU: --device cpu.")
    return described_by_torch(case.device == "cuda")


def _limit_memory(case: Case) -> None:
    """Leave the case what it may have: of the card through torch, of memory through the kernel."""
    limit = case.memory_limit_bytes
    if limit is None:
        return
    if case.device == "cuda":
        import torch

        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(limit / total, 1.0))
        return
    import resource

    with open("/proc/self/status", encoding="ascii") as status:
        held = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData"))
    resource.setrlimit(resource.RLIMIT_DATA, (held + limit, held + limit))


def _failed(outcome: Outcome, message: str) -> dict[str, Any]:
    return {"failed": {"outcome": outcome.value, "message": " ".join(message.split())[:MESSAGE_LENGTH]}}


def _send(events: TextIO, event: dict[str, Any]) -> None:
    events.write(json.dumps(event) + "\n")
    events.flush()


if __name__ == "__main__":
    main()
