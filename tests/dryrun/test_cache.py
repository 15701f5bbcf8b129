"""Cached traces: found again, never half written, and never in the way of an answer."""

from __future__ import annotations

import gzip
import multiprocessing
import os
import resource
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from peftbench.base.cache_folder import cache_folder, calibration_place
from peftbench.base.errors import CatalogError
from peftbench.dryrun.cache import TraceCache, code_digest
from peftbench.dryrun.session import DryRunSession
from peftbench.dryrun.trace.trace import Block, Trace
from peftbench.dryrun.workload import Workload
from peftbench.inputs.recipe import AdapterSpec, TrainingSpec
from peftbench.memory import Part
from peftbench.records.calibration import default_path

WORKLOAD = Workload(config='{"model_type": "llama"}', recipe=TrainingSpec())
TRACE = Trace([Block(8, Part.LOGITS, "lm_head", "aten::mm", "2,4", "float32")], [0, ~0], [], {"num_parameters": 1})


def no_word(text: str) -> None:
    raise AssertionError(text)


def test_a_trace_is_found_again(tmp_path: Path) -> None:
    cache = TraceCache(tmp_path, no_word)
    assert cache.read(WORKLOAD) is None
    cache.write(WORKLOAD, TRACE)
    assert cache.read(WORKLOAD) == TRACE
    assert [path.suffix for path in tmp_path.iterdir()] == [".gz"]


def test_any_file_of_the_package_makes_entries_stale(tmp_path: Path) -> None:
    deep = tmp_path / "estimate" / "tape" / "autograd.py"
    deep.parent.mkdir(parents=True)
    digests = set()
    for text in ("", "pass\n"):
        deep.write_text(text)
        digests.add(code_digest(tmp_path))
    deep.rename(deep.with_name("tape.py"))
    digests.add(code_digest(tmp_path))
    assert len(digests) == 3


def test_a_factor_of_the_adapter_is_no_other_question(tmp_path: Path) -> None:
    cache = TraceCache(tmp_path, no_word)
    one, other = (
        replace(WORKLOAD, recipe=TrainingSpec(adapter=AdapterSpec(r=8, alpha=alpha))) for alpha in (None, 32)
    )
    assert cache.path(one) == cache.path(other) != cache.path(WORKLOAD)


def test_another_question_has_another_entry(tmp_path: Path) -> None:
    cache = TraceCache(tmp_path, no_word)
    cache.write(WORKLOAD, TRACE)
    for other in (
        replace(WORKLOAD, compute_capability=(7, 5)),
        replace(WORKLOAD, recipe=TrainingSpec(sequence_length=7)),
        replace(WORKLOAD, batch_lengths=(3, 4)),
        replace(WORKLOAD, adapter_config="{}"),
    ):
        assert cache.read(other) is None


@pytest.mark.parametrize("damage", [b"", b"not gzip", b"\x1f\x8b\x08\x00\x00\x00"])
def test_a_damaged_entry_is_told_and_run_again(tmp_path: Path, damage: bytes) -> None:
    told: list[str] = []
    cache = TraceCache(tmp_path, told.append)
    cache.write(WORKLOAD, TRACE)
    cache.path(WORKLOAD).write_bytes(damage)
    assert cache.read(WORKLOAD) is None
    assert len(told) == 1 and "it is run again" in told[0]
    cache.write(WORKLOAD, TRACE)
    assert cache.read(WORKLOAD) == TRACE


def swap(path: Path, make: Callable[[Path], object]) -> None:
    """Put something else in the place of an entry."""
    path.unlink()
    make(path)


def packed(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(gzip.compress(content))


@pytest.mark.parametrize("make", [
    os.mkfifo,
    Path.mkdir,
    lambda path: path.symlink_to(path),
    lambda path: path.symlink_to("/dev/zero"),
    lambda path: path.write_bytes(os.urandom(1000)),
    packed(b""), packed(b"{}"), packed(b"[]"), packed(b"x\n{}"), packed(bytes(1000)),
    packed(b"a" * 64 + b"\n" + b'{"version": 1, "texts": [], "blocks": [], "events": [5], "marks": [], "facts": {}}'),
])  # fmt: skip
def test_what_is_no_entry_is_told_and_run_again(tmp_path: Path, make: Callable[[Path], object]) -> None:
    told: list[str] = []
    cache = TraceCache(tmp_path, told.append)
    cache.write(WORKLOAD, TRACE)
    swap(cache.path(WORKLOAD), make)
    assert cache.read(WORKLOAD) is None
    assert len(told) == 1 and "it is run again" in told[0]


def test_the_entry_of_another_question_is_not_used(tmp_path: Path) -> None:
    told: list[str] = []
    cache, other = TraceCache(tmp_path, told.append), replace(WORKLOAD, compute_capability=(7, 5))
    cache.write(WORKLOAD, TRACE)
    cache.path(WORKLOAD).rename(cache.path(other))
    assert cache.read(other) is None and "it is run again" in told[0]


def test_an_entry_that_unpacks_without_an_end_is_not_read_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr("peftbench.dryrun.cache.MOST_BYTES", 1000)
    cache = TraceCache(tmp_path, told.append)
    cache.path(WORKLOAD).write_bytes(gzip.compress(bytes(10_000_000)))
    assert cache.read(WORKLOAD) is None and told


def test_without_a_home_folder_nothing_is_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a user of a container that its system has no entry of."""
    told: list[str] = []
    for name in ("PEFTBENCH_CACHE", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "PEFTBENCH_CALIBRATION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    assert DryRunSession(tell=told.append)._cache is None
    (said,) = told
    assert said.startswith("dry runs are not cached: there is no home folder") and "PEFTBENCH_CACHE" in said
    assert calibration_place() == ""
    with pytest.raises(CatalogError, match="no home folder"):
        default_path("l4")


def test_an_entry_cut_short_is_run_again(tmp_path: Path) -> None:
    told: list[str] = []
    cache = TraceCache(tmp_path, told.append)
    cache.write(WORKLOAD, TRACE)
    whole = cache.path(WORKLOAD).read_bytes()
    for length in range(1, len(whole)):
        cache.path(WORKLOAD).write_bytes(whole[:length])
        assert cache.read(WORKLOAD) is None


def test_a_folder_that_cannot_be_is_told(tmp_path: Path) -> None:
    told: list[str] = []
    (tmp_path / "file").touch()
    TraceCache(tmp_path / "file" / "cache", told.append).write(WORKLOAD, TRACE)
    assert len(told) == 1 and "could not be cached" in told[0]


def write_to_full_disk(folder: Path, sender: object) -> None:
    """As on a full disk: files may not grow beyond 16 bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, 16))
    told: list[str] = []
    TraceCache(folder, told.append).write(WORKLOAD, TRACE)
    sender.send((told, [path.name for path in folder.iterdir()]))  # type: ignore[attr-defined]


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=write_to_full_disk, args=(tmp_path, sender))
    process.start()
    told, left = receiver.recv()
    process.join()
    assert len(told) == 1 and "could not be cached" in told[0]
    assert left == []


def write_often(folder: Path) -> None:
    cache = TraceCache(folder, no_word)
    for _ in range(200):
        cache.write(WORKLOAD, TRACE)
        assert cache.read(WORKLOAD) == TRACE


def test_two_processes_do_not_disturb_each_other(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=write_often, args=(tmp_path,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(list(tmp_path.iterdir())) == 1


def test_the_folder_can_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PEFTBENCH_CACHE", str(tmp_path))
    assert cache_folder("dryrun") == tmp_path
    monkeypatch.delenv("PEFTBENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder("dryrun") == tmp_path / "peftbench" / "dryrun"


def test_an_entry_with_other_numbers_is_run_again(tmp_path: Path) -> None:
    told: list[str] = []
    cache = TraceCache(tmp_path, told.append)
    cache.write(WORKLOAD, TRACE)
    path = cache.path(WORKLOAD)
    for old, new in ((b'"events": [0, -1]', b'"events": [0, 0]'), (b"[8]", b"[-8]")):
        content = gzip.decompress(path.read_bytes())
        assert old in content
        path.write_bytes(gzip.compress(content.replace(old, new)))
        assert cache.read(WORKLOAD) is None
        cache.write(WORKLOAD, TRACE)
    assert len(told) == 2 and all("it is run again" in text for text in told)
