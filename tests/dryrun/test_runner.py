"""Whatever becomes of the child process is one clear message."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from peftbench.dryrun import runner
from peftbench.dryrun.runner import DryRunError, DryRunner
from peftbench.dryrun.workload import Workload, workload_from_json, workload_of, workload_to_json
from peftbench.inputs.recipe import AdapterSpec, InferenceSpec, QuantizationSpec, TrainingSpec
from peftbench.libraries.refusal import Refused

WORKLOAD = Workload(config='{"model_type": "llama"}', recipe=TrainingSpec())

CHILDREN = {
    "killed": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
    "aborted": "import os; os.abort()",
    "stopped": "import sys; input(); print('no room left', file=sys.stderr); sys.exit(3)",
    "half a word": "import sys; input(); sys.stdout.write('{\"progr'); sys.stdout.flush()",
    "no library": (
        "input(); import json; "
        "print(json.dumps({'failed': {'what': \"ModuleNotFoundError: No module named 'peft'\", 'traceback': ''}}))"
    ),
    "refused": "input(); import json; print(json.dumps({'refused': {'what': 'it will not.', 'hint': 'Try another.'}}))",
    "failed": (
        "input(); import json; print(json.dumps({'failed': {'what': 'RuntimeError: shapes', "
        "'traceback': '  File \"/site/transformers/models/llama/modeling_llama.py\", line 9, in forward'}}))"
    ),
}
"""Programs in the place of the worker."""


def outcome(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str) -> str:
    (tmp_path / "stand_in_worker.py").write_text(program)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(runner, "MODULE", "stand_in_worker")
    with DryRunner() as child, pytest.raises((DryRunError, Refused)) as error:
        child.run(WORKLOAD)
    return str(error.value)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize(("name", "said"), [
    ("killed", "ended by SIGSEGV"),
    ("aborted", "ended by SIGABRT"),
    ("stopped", "exit code 3.\n  Its last line: no room left"),
    ("half a word", "exit code 0"),
    ("no library", "needs the real libraries: No module named 'peft'.\n  Run: pip install"),
    ("refused", "it will not.\n  Try another."),
    ("failed", "RuntimeError: shapes\n  It stopped in models/llama/modeling_llama.py, line 9, in forward"),
])  # fmt: skip
def test_every_end_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, said: str) -> None:
    assert said in outcome(monkeypatch, tmp_path, CHILDREN[name])


def test_a_child_that_hangs_is_ended_with_one_message(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "stand_in_worker.py").write_text("import time; input(); time.sleep(600)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(runner, "MODULE", "stand_in_worker")
    child = DryRunner(timeout_s=0.5)
    with pytest.raises(DryRunError, match=r"no sign of life for 0\.5 s and was ended"):
        child.run(WORKLOAD)
    assert child._child is None


def test_a_case_has_the_same_time_limit_in_the_command_and_in_python() -> None:
    from inspect import signature

    from peftbench.cli.run import run
    from peftbench.measure.runner import run_case

    typed = next(parameter.default for parameter in run.params if parameter.name == "timeout")
    assert typed == signature(run_case).parameters["timeout_s"].default == 3600


def test_progress_is_passed_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = (
        "import json, sys; input(); print(json.dumps({'progress': 0.5})); "
        "print(json.dumps({'refused': {'what': 'no', 'hint': ''}}))"
    )
    (tmp_path / "stand_in_worker.py").write_text(program)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(runner, "MODULE", "stand_in_worker")
    seen: list[float] = []
    with DryRunner() as child, pytest.raises(Refused):
        child.run(WORKLOAD, seen.append)
    assert seen == [0.5]


@pytest.mark.parametrize("recipe", [
    TrainingSpec(padded=True, adapter=AdapterSpec(options=(("init_r", 4),)), quantization=QuantizationSpec()),
    InferenceSpec(prompt_tokens=7, adapter=AdapterSpec(target_modules=("q_proj",))),
])  # fmt: skip
def test_a_workload_survives_json(recipe: TrainingSpec | InferenceSpec) -> None:
    workload = workload_of({"model_type": "llama"}, recipe, None, batch_lengths=(3, 4), layers=2)
    assert workload_from_json(workload_to_json(workload)) == workload
