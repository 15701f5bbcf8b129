"""A file of records loses none and invents none, whatever became of its writers."""

import errno
import fcntl
import json
import os
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from run_records import record

from peftbench.base.errors import CatalogError, MeasureError
from peftbench.records import lines
from peftbench.records.file import RecordFile, read_results
from peftbench.records.run import record_to_json


def line(id):
    return json.dumps(record_to_json(record(id)), sort_keys=True) + "\n"


def ids(path, tell):
    return [one.case.id for one in read_results(path, tell).runs]


@pytest.fixture
def told():
    return []


def write(path, told, *names):
    with RecordFile(path, told.append) as file:
        for id in names:
            file.append(record(id))


def test_records_are_appended(tmp_path, told):
    write(tmp_path / "new" / "a.jsonl", told, "a", "b")
    write(tmp_path / "new" / "a.jsonl", told, "c")
    assert ids(tmp_path, told.append) == ["a", "b", "c"]
    assert told == []


@pytest.mark.parametrize("kept", [1, 40, -2])
def test_a_line_whose_writer_died_in_it_is_cut_off(tmp_path, told, kept):
    path = tmp_path / "a.jsonl"
    path.write_text(line("a") + line("lost")[:kept])
    assert ids(path, told.append) == ["a"]
    assert "writer stopped in the middle" in told[0]
    write(path, told, "b")
    assert path.read_text() == line("a") + line("b")


def test_a_whole_last_line_without_an_end_is_kept(tmp_path, told):
    path = tmp_path / "a.jsonl"
    path.write_text(line("a").rstrip("\n"))
    write(path, told, "b")
    assert path.read_text() == line("a") + line("b")


def test_a_corrupt_line_in_the_middle_costs_only_itself(tmp_path, told):
    path = tmp_path / "a.jsonl"
    path.write_bytes(line("a").encode() + b"\xff\x00 not json\n[]\n\n" + line("b").encode())
    assert ids(path, told.append) == ["a", "b"]
    assert [text.split(": ")[0].rpartition(" ")[2] for text in told] == ["2", "3"]


def test_a_newer_record_is_left_out_with_the_remedy(tmp_path, told):
    newer = {**record_to_json(record("a")), "schema_version": 99}
    (tmp_path / "a.jsonl").write_text(json.dumps(newer) + "\n" + line("b"))
    assert ids(tmp_path, told.append) == ["b"]
    assert "line 1: left out, schema_version is 99" in told[0] and "Upgrade peftbench" in told[0]


def test_in_a_folder_what_is_no_file_of_records_is_told(tmp_path, told):
    (tmp_path / "b.jsonl").write_text(line("b"))
    (tmp_path / "c.jsonl").write_text("\n \n")
    (tmp_path / "d.jsonl").mkdir()
    os.mkfifo(tmp_path / "e.jsonl")
    (tmp_path / "f.jsonl").write_text('{"metric": "allocated_max", "measured_bytes": 5}\n')
    assert ids(tmp_path, told.append) == ["b"]
    assert [text.rpartition("/")[2] for text in told] == [
        "c.jsonl is empty.", "d.jsonl is a folder, not a file.", "e.jsonl is a pipe, not a file.",
    ]  # fmt: skip


def test_a_line_without_an_end_in_sight_is_not_kept(tmp_path, told, monkeypatch):
    monkeypatch.setattr(lines, "MOST_LINE_BYTES", 1 << 12)
    (tmp_path / "a.jsonl").write_text(line("a") + "x" * 10_000 + "\n" + line("b") + "x" * 10_000)
    assert ids(tmp_path, told.append) == ["a", "b"]
    assert all("left out, it is longer than 4,096 bytes" in text for text in told) and len(told) == 2


def test_notes_of_a_hopeless_file_end(tmp_path, told):
    (tmp_path / "a.jsonl").write_text("text\n" * 1000)
    assert ids(tmp_path, told.append) == []
    assert len(told) == lines.MOST_TOLD + 1 and told[-1] == "980 more are left out."


def test_a_byte_order_mark_and_crlf_are_no_content(tmp_path, told):
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + (line("a") + line("b")).replace("\n", "\r\n").encode())
    assert ids(tmp_path, told.append) == ["a", "b"] and not told


def test_only_the_first_curves_are_kept(tmp_path, told):
    (tmp_path / "a.jsonl").write_text(line("a") + line("b"))
    first, second = (one.measurement for one in read_results(tmp_path, told.append, curves=1).runs)
    assert first == record().measurement and second == replace(first, samples=(), marks=())


# ── the file that is appended to ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "content",
    [
        b"kept line\nlast line without newline", b"kept line\n", b"\n\n", b"\xff\xfe\x00", b"{}", b'{"case": {}}',
        b'[{"case": {', b'{"metric": "allocated_max", "measured_bytes": 5}\n', b"text\n" + line("a").encode(),
        line("a").encode() + b"text", line("a").encode() + b"text\n", b'{\n  "suite": "x"\n}\n',
        b'{"case": {"id": "x"\n', line("a").encode() + b'{"case": {"id": "x"\n',
    ],
)  # fmt: skip
def test_a_file_of_something_else_is_refused_and_left_as_it_is(tmp_path, told, content):
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(MeasureError, match="holds something else than records"):
        write(path, told, "a")
    assert path.read_bytes() == content and told == []


def test_a_damaged_line_is_no_reason_to_refuse(tmp_path, told):
    path = tmp_path / "a.jsonl"
    path.write_text(line("a")[:50] + "\n" + line("b") + "\n\0\n" + line("c"))
    write(path, told, "d")
    assert ids(path, told.append) == ["b", "c", "d"]


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_what_is_no_file_is_refused_at_once(tmp_path, told, make):
    make(tmp_path / "a.jsonl")
    with pytest.raises(MeasureError, match="is not a file"):
        write(tmp_path / "a.jsonl", told, "a")


@pytest.mark.parametrize("kept", [1, 40, -2])
def test_a_lone_line_whose_writer_died_in_it_is_cut_off(tmp_path, told, kept):
    path = tmp_path / "a.jsonl"
    path.write_text(line("lost")[:kept])
    write(path, told, "b")
    assert path.read_text() == line("b") and "cut off" in told[0]


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_filesystem_without_locks_is_told(tmp_path, told, monkeypatch, code):
    def flock(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    write(tmp_path / "a.jsonl", told, "a")
    assert ids(tmp_path, pytest.fail) == ["a"]
    assert len(told) == 1 and "has no locks" in told[0]


def test_a_second_writer_is_refused(tmp_path, told):
    path = tmp_path / "a.jsonl"
    code = (
        "import sys\nfrom peftbench.base.errors import MeasureError\nfrom peftbench.records.file import RecordFile\n"
        "try:\n    RecordFile(sys.argv[1], print).__enter__()\nexcept MeasureError as error: print(error.what)\n"
    )
    with RecordFile(path, told.append) as file:
        file.append(record("a"))
        done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
        assert "another run is writing" in done.stdout
        file.append(record("b"))
    assert ids(path, told.append) == ["a", "b"]


def test_a_full_disk_leaves_whole_lines(tmp_path, told):
    path = tmp_path / "a.jsonl"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with RecordFile(path, told.append) as file:
        file.append(record("a"))
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 100, before[1]))
            with pytest.raises(OSError):
                file.append(record("b"))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert path.read_text() == line("a")
        file.append(record("b"))
    assert ids(path, told.append) == ["a", "b"]


def test_a_folder_that_cannot_be_made_is_told(tmp_path, told):
    (tmp_path / "file").touch()
    with pytest.raises(MeasureError, match="cannot write"):
        RecordFile(tmp_path / "file" / "a.jsonl", told.append).__enter__()


def test_nothing_to_read_is_told(tmp_path, told):
    for path in (tmp_path, Path("nowhere")):
        with pytest.raises(CatalogError):
            ids(path, told.append)
