"""Whatever becomes of the child process is one clear message."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from peftbench.dryrun import runner
from peftbench.dryrun.runner import DryRunError, DryRunner
from peftbench.dryrun.workload import Workload, workload_from_json, workload_of, workload_to_json
from peftbench.inputs.recipe import AdapterSpec, InferenceSpec, QuantizationSpec, TrainingSpec
from peftbench.libraries import worker
from peftbench.libraries.refusal import Refused

WORKLOAD = Workload(config='{"model_type": "llama"}', recipe=TrainingSpec())

CHILDREN = {
    "killed": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
    "aborted": "import os; os.abort()",
    "stopped": "import sys; input(); print('no room left', file=sys.stderr); sys.exit(3)",
    "half a word": "import sys; input(); sys.stdout.write('{\"progr'); sys.stdout.flush()",
    "out of memory": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "an unnamed signal": "import os, signal; os.kill(os.getpid(), signal.SIGRTMIN + 1)",
    "closes stdout": "import os, time; os.close(1); time.sleep(600)",
    "garbage": "input(); print('hello')",
    "bytes": "import sys; sys.stdout.buffer.write(bytes(range(128, 256)) + b'\\n')",
    "a list": "input(); print('[1]')",
    "a number": "input(); print('3')",
    "another word": "input(); print('{\"moon\": 1}')",
    "no share": "input(); print('{\"progress\": NaN}')",
    "no trace": "input(); print('{\"trace\": {\"version\": 1}}')",
    "no failure": "input(); print('{\"failed\": []}')",
    "deep": "input(); print('[' * 100000)",
    "a flood": "while True: print('x' * 100000, end='')",
    "a flood of lines": "while True: print('{\"progress\": 0.5}')",
    "a flood of errors": "import sys\nwhile True: sys.stderr.write('x' * 100000)",
    "sleeps": "import time; input(); time.sleep(600)",
    "stopped by a signal": "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)",
    "computes for ever": "while True: pass",
    "reads nothing": "import time; time.sleep(600)",
    "no library": (
        "input(); import json; "
        "print(json.dumps({'failed': {'what': \"ModuleNotFoundError: No module named 'peft'\", 'traceback': ''}}))"
    ),
    "refused": "input(); import json; print(json.dumps({'refused': {'what': 'it will not.', 'hint': 'Try another.'}}))",
    "no memory": (
        "input(); import json; "
        "print(json.dumps({'failed': {'what': 'RuntimeError: std::bad_alloc', 'traceback': ''}}))"
    ),
    "failed": (
        "input(); import json; print(json.dumps({'failed': {'what': 'RuntimeError: shapes', "
        "'traceback': '  File \"/site/transformers/models/llama/modeling_llama.py\", line 9, in forward'}}))"
    ),
}
"""Programs in the place of the worker."""


def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str) -> None:
    (tmp_path / "stand_in_worker.py").write_text(program)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(runner, "MODULE", "stand_in_worker")


def outcome(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str, timeout_s: float = 60.0) -> str:
    stand_in(monkeypatch, tmp_path, program)
    with DryRunner() as child, pytest.raises((DryRunError, Refused)) as error:
        child.run(WORKLOAD, timeout_s=timeout_s)
    return str(error.value)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize(("name", "said"), [
    ("killed", "ended by SIGSEGV"),
    ("aborted", "ended by SIGABRT"),
    ("stopped", "exit code 3.\n  Its last line: no room left"),
    ("half a word", "exit code 0"),
    ("out of memory", "SIGKILL, as the kernel does where memory runs out"),
    ("an unnamed signal", "ended by signal 3"),
    ("garbage", "cannot be read: b'hello'"),
    ("bytes", "cannot be read"),
    ("a list", "cannot be read"),
    ("a number", "cannot be read"),
    ("another word", "cannot be read"),
    ("no share", "cannot be read"),
    ("no trace", "cannot be read"),
    ("no failure", "cannot be read"),
    ("deep", "cannot be read"),
    ("no library", "needs the real libraries: No module named 'peft'.\n  Run: pip install"),
    ("no memory", "the dry run ran out of memory: RuntimeError: std::bad_alloc."),
    ("refused", "it will not.\n  Try another."),
    ("failed", "RuntimeError: shapes\n  It stopped in models/llama/modeling_llama.py, line 9, in forward"),
])  # fmt: skip
def test_every_end_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, said: str) -> None:
    assert said in outcome(monkeypatch, tmp_path, CHILDREN[name])


@pytest.mark.parametrize(("name", "said"), [
    ("closes stdout", "closed its output and did not end"),
    ("a flood", "cannot be read: b'xxx"),
    ("a flood of lines", "wrote without an end"),
    ("a flood of errors", "no sign of life"),
    ("sleeps", "no sign of life for 0 s and was ended.\n  If this machine is only slow, give it longer: --timeout 2."),
    ("stopped by a signal", "no sign of life for 0 s"),
    ("computes for ever", "no sign of life for 1 s"),
])  # fmt: skip
def test_a_child_that_comes_to_no_end_is_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, said: str
) -> None:
    monkeypatch.setattr(runner, "LONGEST_ANSWER", 1 << 20)
    monkeypatch.setattr(worker, "GRACE_S", 0.1)
    monkeypatch.setattr(worker, "GLANCE_S", 0.02)
    assert said in outcome(monkeypatch, tmp_path, CHILDREN[name], timeout_s=1.0)


def test_a_question_that_nobody_reads_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stand_in(monkeypatch, tmp_path, CHILDREN["reads nothing"])
    long = Workload(config=json.dumps({"model_type": "llama", "id2label": ["x" * 1000] * 1000}), recipe=TrainingSpec())
    with DryRunner() as child, pytest.raises(DryRunError, match="no sign of life"):
        child.run(long, timeout_s=1.0)


def test_what_a_child_started_is_ended_with_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It holds the pipes open, so that their end is no sign of the child's."""
    stand_in(monkeypatch, tmp_path, (
        "import os, subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(child.pid, file=open(os.environ['PYTHONPATH'].split(os.pathsep)[-1] + '/pid', 'w'))\n"
        "os._exit(3)"
    ))  # fmt: skip
    monkeypatch.setattr(worker, "GLANCE_S", 0.02)
    with DryRunner() as child, pytest.raises(DryRunError, match="exit code 3"):
        child.run(WORKLOAD)
    assert ends(int((tmp_path / "pid").read_text()))


def ends(pid: int) -> bool:
    """Whether a process ends, at once or soon: a zombie has, and nobody waits for a signal to arrive."""
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


def test_an_interrupt_ends_the_child_and_its_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Who asks again gets the answer to the second question, from a new child."""
    stand_in(monkeypatch, tmp_path, (
        "import json\nfor line in open(0):\n"
        " print(json.dumps({'progress': 0.5}), flush=True)\n"
        " print(json.dumps({'refused': {'what': json.loads(line)['config'], 'hint': ''}}), flush=True)"
    ))  # fmt: skip

    def interrupted(share: float) -> None:
        raise KeyboardInterrupt

    with DryRunner() as child:
        with pytest.raises(KeyboardInterrupt):
            child.run(WORKLOAD, interrupted)
        with pytest.raises(Refused, match="second"):
            child.run(Workload(config='{"model_type": "second"}', recipe=TrainingSpec()))


def test_a_child_goes_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    """Even one that is stopped, and so sees no pipe close."""
    program = (
        "import os, signal, sys\nfrom peftbench.libraries.worker import Worker, die_with_parent\n"
        "if sys.argv[1:]:\n die_with_parent()\n print(os.getpid(), flush=True)\n"
        " os.kill(os.getpid(), signal.SIGSTOP)\n"
        "worker = Worker((sys.executable, __file__), 100, {})\n"
        "print(worker.line(9e9).decode(), flush=True)\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    (tmp_path / "parent.py").write_text(program)
    environment = {**os.environ, "PYTHONPATH": str(Path(runner.__file__).parents[2])}
    done = subprocess.run([sys.executable, tmp_path / "parent.py"], capture_output=True, text=True, env=environment)
    assert ends(int(done.stdout))


def test_a_working_directory_that_is_gone_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with DryRunner() as child, pytest.raises(DryRunError, match="the working directory is gone"):
        child.run(WORKLOAD)


def test_a_case_has_the_same_time_limit_in_the_command_and_in_python() -> None:
    from inspect import signature

    from peftbench.cli.run import run
    from peftbench.measure.runner import run_case

    typed = next(parameter.default for parameter in run.params if parameter.name == "timeout")
    assert typed == signature(run_case).parameters["timeout_s"].default == 3600


def test_a_dry_run_has_the_time_limit_that_help_shows() -> None:
    from peftbench.cli.ask.options import DRY_RUN
    from peftbench.cli.validate import validate

    shown = [option.help for option in (*DRY_RUN, *validate.params) if option.name == "timeout"]
    assert [f"[default: {runner.TIMEOUT_S:g}]" in str(text) for text in shown] == [True, True]


def test_progress_is_passed_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stand_in(monkeypatch, tmp_path, (
        "import json, sys; input(); print(json.dumps({'progress': 0.5})); "
        "print(json.dumps({'refused': {'what': 'no', 'hint': ''}}))"
    ))  # fmt: skip
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
