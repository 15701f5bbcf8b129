"""Whatever becomes of a child, the suite goes on, its record says so, and nothing is left running."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from run_records import TINY, case

from peftbench.measure import child_process as child
from peftbench.measure.child_process import Stop
from peftbench.measure.device.open import Host
from peftbench.measure.runner import growing, run_case
from peftbench.memory import Phase
from peftbench.records.environment import Outcome
from peftbench.records.file import RecordFile, read_results

HERE = Path(__file__).parents[1] / "support" / "runs"
LONG_S = 60.0


@pytest.fixture(autouse=True)
def staged(monkeypatch):
    monkeypatch.setattr(child, "COMMAND", (sys.executable, str(HERE / "staged_worker.py")))


def measured(name, timeout_s=LONG_S):
    with Stop() as stop:
        return run_case(case(name), Host(), "suite", stop, timeout_s).measurement


def test_a_run_that_ends_well():
    found = measured("ok")
    assert (found.outcome, found.message, found.last_phase) == (Outcome.OK, "", None)
    assert found.losses == (5.0, 4.0, 3.0) and found.step_s == (0.25,)
    assert found.allocated_bytes == 1001 and found.trainable_parameters == 7
    assert [peak.phase for peak in found.phases[:2]] == [Phase.LOAD, Phase.FORWARD]
    assert found.process_peak_bytes and found.samples


@pytest.mark.parametrize(
    ("name", "phase"),
    [("load", Phase.LOAD), ("forward", Phase.FORWARD), ("backward", Phase.BACKWARD), ("step", Phase.STEP)],
)
def test_killed_in_a_phase(name, phase):
    found = measured(f"killed-{name}")
    assert (found.outcome, found.last_phase) == (Outcome.KILLED, phase)
    assert "SIGKILL" in found.message and "memory" in found.message
    assert all(peak.phase != phase for peak in found.phases)


@pytest.mark.parametrize(
    ("name", "outcome", "says"),
    [
        ("segv", Outcome.KILLED, "SIGSEGV"),
        ("unnamed", Outcome.KILLED, "by signal 3"),
        ("heir", Outcome.KILLED, "SIGKILL"),
        ("noise", Outcome.OK, ""),
        ("oom", Outcome.OOM, "CUDA out of memory"),
        ("exit", Outcome.ERROR, "exit code 1; its last line: ImportError"),
        ("silent", Outcome.ERROR, "exit code 0"),
        ("garbage-binary", Outcome.ERROR, "cannot be read"),
        ("garbage-text", Outcome.ERROR, "cannot be read"),
        ("garbage-list", Outcome.ERROR, "cannot be read"),
        ("garbage-number", Outcome.ERROR, "cannot be read"),
        ("garbage-mark", Outcome.ERROR, "cannot be read"),
        ("garbage-peak", Outcome.ERROR, "cannot be read"),
        ("flood", Outcome.ERROR, "cannot be read"),
    ],
)
def test_every_other_end_is_an_outcome(name, outcome, says):
    found = measured(name)
    assert found.outcome is outcome
    assert says in found.message


def test_a_hanging_child_is_ended_when_its_time_is_over():
    found = measured("hang", timeout_s=1.5)
    assert found.outcome is Outcome.TIMEOUT
    assert found.losses == (5.0, 4.0, 3.0)  # what it had reached


def test_a_child_that_says_nothing_more_is_ended(monkeypatch):
    monkeypatch.setattr("peftbench.libraries.worker.GRACE_S", 0.1)
    found = measured("deaf")
    assert (found.outcome, found.message) == (Outcome.ERROR, "it closed its output and did not end")


def test_what_a_child_started_goes_with_it():
    assert measured("orphan").outcome is Outcome.OK
    assert processes("orphan-of-a-test") == []


def test_the_clock_of_the_machine_does_not_matter(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: random.uniform(-1e9, 1e9))
    found = measured("ok")
    assert found.outcome is Outcome.OK
    times = [sample.time_s for sample in found.samples]
    assert times == sorted(times) and 0 <= found.duration_s < LONG_S


@pytest.mark.parametrize("most_that_fits", [0, 1, 2, 3, 5, 6, 8, 13, 64])
def test_the_largest_value_is_found(most_that_fits):
    tried = []

    def run(value):
        tried.append(value)
        return Outcome.OK if value <= most_that_fits else Outcome.OOM

    list(growing(run, 64))
    good = [value for value in tried if value <= most_that_fits]
    assert max(good, default=0) == most_that_fits
    assert len(tried) == len(set(tried)) <= 13


def test_the_search_ends_where_something_else_goes_wrong():
    assert len(list(growing(lambda value: Outcome.ERROR, 64))) == 1


# ── the whole command ───────────────────────────────────────────────────────────────────────────────────────────────


def processes(word):
    """Process ids whose command line has this word."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            command = (place / "cmdline").read_bytes()
        except OSError:
            continue
        if word.encode() in command and int(place.name) != os.getpid():
            found.append(int(place.name))
    return found


def suite(tmp_path, *names):
    """No two cases run the same."""
    cases = "".join(f"  {name}: {{micro_batch_size: {place}}}\n" for place, name in enumerate(names, start=1))
    model = json.dumps(TINY)
    path = tmp_path / "staged.yaml"
    path.write_text(f"about: staged\ndevice: cpu\nmodel: {model}\nbase: {{sequence_length: 32}}\ncases:\n{cases}")
    return path


def start(tmp_path, path, *arguments, **options):
    return subprocess.Popen(
        [sys.executable, str(HERE / "staged_run.py"), str(path), *arguments], cwd=tmp_path, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(HERE.parents[2])}, **options,
    )  # fmt: skip


def ids(tmp_path):
    told = []
    records = read_results(tmp_path / "results" / "cpu" / "staged.jsonl", told.append).runs
    assert told == []
    return [(record.case.id, record.measurement.outcome) for record in records]


@pytest.mark.parametrize(
    ("name", "outcome", "code"), [("ok", Outcome.OK, 0), ("oom", Outcome.OOM, 0), ("exit", Outcome.ERROR, 3)]
)
def test_a_comparison_that_fails_is_kept_and_told(tmp_path, name, outcome, code):
    path = tmp_path / f"{name}.yaml"
    path.write_text("about: a\nkind: quality\ndevice: cpu\nmodel: small-llama\ncases: {nf4: {weights: nf4}}\n")
    run = start(tmp_path, path)
    out, err = run.communicate()
    assert run.returncode == code and ("next: peftbench report" in out) == (code == 0)
    (record,) = read_results(tmp_path / "results" / "cpu" / f"{name}.jsonl", print).comparisons
    assert record.outcome is outcome and record.results == ()
    assert outcome is Outcome.OK or str(outcome) in err


def test_a_suite_goes_on_and_a_rerun_skips_what_is_finished(tmp_path):
    path = suite(tmp_path, "ok", "oom", "segv", "exit", "ok-2")
    out, _ = start(tmp_path, path).communicate()
    assert [outcome for _, outcome in ids(tmp_path)] == [
        Outcome.OK, Outcome.OOM, Outcome.KILLED, Outcome.ERROR, Outcome.OK
    ]  # fmt: skip
    assert "5 measured" in out and "next: peftbench validate results/cpu" in out
    again = start(tmp_path, path)
    out, _ = again.communicate()
    assert "2 measured, 3 done before" in out and again.returncode == 0
    out, _ = start(tmp_path, path, "--fresh", "--only", "ok").communicate()
    assert "1 measured" in out
    assert len(ids(tmp_path)) == 5 + 2 + 1


def test_equal_cases_are_told_apart_by_what_they_run(tmp_path):
    """The second case runs the same under another name: its figures are there already."""
    path = suite(tmp_path, "ok", "ok-2")
    path.write_text(path.read_text().replace("micro_batch_size: 2", "micro_batch_size: 1"))
    out, _ = start(tmp_path, path).communicate()
    assert len(ids(tmp_path)) == 1 and "1 measured, 1 done before" in out


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_the_child_and_keeps_what_was_measured(tmp_path, number, code):
    process = start(tmp_path, suite(tmp_path, "ok", "hang"))
    while "ok  " not in process.stdout.readline():
        pass
    process.send_signal(number)
    _, err = process.communicate()
    assert (process.returncode, err) == (code, "interrupted: what was measured until now is in the file.\n")
    assert ids(tmp_path) == [("ok", Outcome.OK)] and processes("staged_worker.py") == []
    with RecordFile(tmp_path / "results" / "cpu" / "staged.jsonl", print):  # nobody holds its lock
        pass


def test_a_thread_can_measure():
    found = []
    thread = threading.Thread(target=lambda: found.append(measured("ok").outcome))
    thread.start()
    thread.join()
    assert found == [Outcome.OK]


def shoot(process, chance):
    """Send a signal to the command, or kill its child."""
    number = chance.choice((signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL, None))
    if number is not None:
        process.send_signal(number)
        return
    for pid in processes("staged_worker.py"):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("runs", [4, pytest.param(100, marks=pytest.mark.slow)])
def test_signals_at_random_moments(tmp_path, runs):
    """No record lost, none invented, no orphan: what the command said is done is in the file, and nothing else."""
    chance = random.Random(runs)
    path = suite(tmp_path, *(f"slow-{number}" for number in range(4)))
    file = tmp_path / "results" / "cpu" / "staged.jsonl"
    done = 0
    for _ in range(runs):
        process = start(tmp_path, path)
        time.sleep(chance.uniform(0.0, 2.5))
        shoot(process, chance)
        out, _ = process.communicate()
        said = sum("/4  slow" in line and "(done before)" not in line for line in out.splitlines())
        found = ids(tmp_path) if file.exists() else []
        assert said <= len(found) - done <= said + 1  # killed between the file and the screen
        good = [name for name, outcome in found if outcome is Outcome.OK]
        assert len(good) == len(set(good))
        done = len(found)
        if len(good) == 4:
            file.unlink()
            done = 0
    deadline = time.monotonic() + LONG_S
    while processes("staged_worker.py") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes("staged_worker.py") == []


def test_a_full_disk_loses_nothing(tmp_path):
    """What cannot be written is printed, and the exit code says that it could not be measured properly."""

    def small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    process = start(tmp_path, suite(tmp_path, "ok", "ok-2", "ok-3"), preexec_fn=small_files)
    out, err = process.communicate()
    assert process.returncode == 3 and "could not be written" in err
    printed = [json.loads(line)["case"]["id"] for line in out.splitlines() if line.startswith("{")]
    assert [name for name, _ in ids(tmp_path)] + printed == ["ok", "ok-2", "ok-3"] and printed
