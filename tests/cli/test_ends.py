"""How a command ends where its streams, its limits or a signal stop it: one message, its exit code, nothing left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from cli_runner import run

from peftbench.base.errors import Interrupted
from peftbench.cli import signals

ROOT = Path(signals.__file__).parents[2]
RESULTS = ROOT / "results" / "cpu"
PLAN = "plan --model 8b --gpu t4"
FULL = "Error: cannot write the answer: No space left on device.\n  Send it elsewhere.\n"
TOO_LARGE = "Error: cannot write runs: File too large.\n  Name another file with -o.\n"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX shells and signals")


def environment(**changes: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **changes}


def shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What a shell makes of a line in which `peftbench` stands for the command."""
    line = line.replace("peftbench", f"'{sys.executable}' -m peftbench")
    return subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, cwd=folder, env=environment(), stdin=subprocess.DEVNULL
    )


# ── streams and limits ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("line", "code", "says"), [
    ("peftbench --help > /dev/full", 2, FULL),
    ("peftbench --version > /dev/full", 2, FULL),
    ("peftbench run --help > /dev/full", 2, FULL),
    (f"peftbench {PLAN} > /dev/full", 2, FULL),
    (f"peftbench {PLAN} > /dev/full 2>&1", 2, ""),
    ("peftbench plan --nope 2> /dev/full", 2, ""),
    ("peftbench models >&-", 0, ""),
    ("peftbench models <&- >&- 2>&-", 0, ""),
    ("peftbench choose --model 8b --tokens 50M --gpu l4 --expand 1 >&-", 0, ""),
    (f"peftbench report {RESULTS} -o page.html <&- >&- 2>&-; test -s page.html", 0, ""),
    (f"peftbench {PLAN} <&- 2>&- > answer; test -s answer", 0, ""),
    ("peftbench recipe --model 8b --for axolotl --method lora 2> /dev/full > answer; test -s answer", 0, ""),
    (f"ulimit -f 1; peftbench report {RESULTS} --format json -o runs; code=$?; rmdir $PWD; exit $code", 2, TOO_LARGE),
    ("set -o pipefail; peftbench --help | true", 141, ""),
    ("set -o pipefail; peftbench --help 2>&1 | true", 141, ""),
    ("set -o pipefail; peftbench plan --nope 2>&1 | true", 2, ""),
    (f"ulimit -n 20; ulimit -v 2500000; peftbench {PLAN} > answer; test -s answer", 0, ""),
    (f"mkdir gone; cd gone; rmdir ../gone; peftbench {PLAN} > ../answer; test -s ../answer", 0, ""),
])  # fmt: skip
def test_what_the_system_refuses_is_one_message(tmp_path: Path, line: str, code: int, says: str) -> None:
    done = shell(line, tmp_path)
    assert (done.returncode, done.stderr) == (code, says)


def test_memory_that_runs_out_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> object:
        raise MemoryError

    monkeypatch.setattr("peftbench.catalog.models.find_config", fail)
    result = run(*PLAN.split())
    assert result.exit_code == 2 and result.stderr.startswith("Error: memory has run out.")


def test_too_many_open_files_are_not_blamed_on_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> object:
        raise OSError(24, "Too many open files", "/srv/models.json")

    monkeypatch.setattr("peftbench.catalog.models.find_config", fail)
    result = run(*PLAN.split())
    assert result.exit_code == 2 and "ulimit -n" in result.stderr and "permissions" not in result.stderr


# ── signals ─────────────────────────────────────────────────────────────────────────────────────────────────────────

WAITING = """
import sys, time
import {module} as module
def wait(*_, **__):
    print("here", flush=True)
    time.sleep(600)
module.{name} = wait
from peftbench.cli import main
main(sys.argv[1:])
"""
"""The command, which waits where it would compute."""
PLACES = {
    "run": ("peftbench.cli.answer.run_cases", "finished", ["run", "smoke", "--out", "x.jsonl"]),
    "plan": ("peftbench.dryrun.session", "TraceCache", [*PLAN.split(), "--method", "lora", "--dry-run"]),
    "choose": ("peftbench.catalog.models", "find_config", ["choose", "--model", "8b", "--tokens", "50M"]),
    "report": ("peftbench.records.file", "read_results", ["report", str(RESULTS)]),
}


@pytest.mark.parametrize(("verb", "number", "code"), [
    ("plan", signal.SIGTERM, 143), ("choose", signal.SIGTERM, 143), ("report", signal.SIGTERM, 143),
    ("plan", signal.SIGHUP, 129), ("report", signal.SIGINT, 130),
])  # fmt: skip
def test_a_signal_ends_a_command_without_a_word(tmp_path: Path, verb: str, number: int, code: int) -> None:
    module, name, arguments = PLACES[verb]
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING.format(module=module, name=name), *arguments], cwd=tmp_path, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(PEFTBENCH_CACHE=str(tmp_path)),
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "here\n"
    process.send_signal(number)
    _, err = process.communicate()
    assert (process.returncode, err) == (code, "")


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    """As nohup asks for."""
    import click

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with click.Context(click.Command("x")) as ctx:
            signals.end_on_signals(ctx)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            with pytest.raises(Interrupted) as interrupted:
                signal.raise_signal(signal.SIGTERM)
            assert interrupted.value.number == signal.SIGTERM
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_thread_may_ask() -> None:
    thread = threading.Thread(target=lambda: codes.append(run("models").exit_code))
    codes: list[int] = []
    thread.start()
    thread.join()
    assert codes == [0]
