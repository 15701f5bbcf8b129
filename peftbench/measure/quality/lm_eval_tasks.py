"""Tasks of lm-evaluation-harness on the variants of a comparison: named ones, or YAML files with local data."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from peftbench.base.errors import MeasureError, install_hint
from peftbench.base.files import read_text

TaskMetric = tuple[str, float, float | None]
"""Task and metric, value, standard error."""


def check_tasks(tasks: tuple[str, ...]) -> None:
    """Raise MeasureError where tasks are asked for that cannot be run here."""
    if tasks and not find_spec("lm_eval"):
        what = "tasks are those of lm-evaluation-harness, which is not installed."
        raise MeasureError(what, install_hint(extra="eval"))
    for task in tasks:
        if task.endswith((".yaml", ".yml")) and not os.path.isfile(task):
            raise MeasureError(f"there is no task file {task}.", "Name a YAML file of a task, or a task by its name.")
        _name(task)


def run_tasks(model: Any, tokenizer: Any, tasks: tuple[str, ...], limit: int | None) -> tuple[TaskMetric, ...]:
    """Every metric of every task. Raises MeasureError for a task that the harness cannot load."""
    if not tasks:
        return ()
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    device = str(next(model.parameters()).device)
    harness = HFLM(pretrained=model, tokenizer=tokenizer, device=device, batch_size=1)
    try:
        found = simple_evaluate(
            harness, tasks=[_name(task) for task in tasks], limit=limit, task_manager=_manager(tasks),
            bootstrap_iters=100, log_samples=False, random_seed=0, numpy_random_seed=0, torch_random_seed=0,
        )  # fmt: skip
    except (KeyError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise MeasureError(f"lm-evaluation-harness cannot run {', '.join(tasks)}: {reason}") from None
    return tuple(_metrics(found["results"]))


def _name(task: str) -> str:
    """A name as it is; of a file the one that it gives its task. It may have tags that no YAML reader knows."""
    if not os.path.isfile(task):
        return task
    named = re.search(r"^(?:task|group):\s*([^\s#]+)", read_text(task, "Name a YAML file of a task."), re.MULTILINE)
    if named is None:
        raise MeasureError(f"{task} names no task.", "Write its name into it, as in task: birds.")
    return named[1].strip("\"'")


def _manager(tasks: tuple[str, ...]) -> Any:
    """Finds tasks in the files' folders. The harness' own thousands are only looked through where one is named."""
    from lm_eval.tasks import TaskManager

    folders = sorted({str(Path(task).resolve().parent) for task in tasks if os.path.isfile(task)})
    return TaskManager(include_path=folders or None, include_defaults=not all(map(os.path.isfile, tasks)))


def _metrics(results: Mapping[str, Mapping[str, Any]]) -> Iterator[TaskMetric]:
    """lm_eval names them "acc,none" and "acc_stderr,none", where "none" is the filter."""
    for task, values in results.items():
        for name, value in values.items():
            metric, _, kind = name.partition(",")
            if kind and isinstance(value, (int, float)) and not metric.endswith("_stderr"):
                error = values.get(f"{metric}_stderr,{kind}")
                shown = metric if kind == "none" else f"{metric} ({kind})"
                yield f"{task} {shown}", float(value), error if isinstance(error, float) else None
