"""A file of records loses none and invents none, whatever became of its writers."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from run_records import record

from peftbench.base.errors import CatalogError, MeasureError
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


def test_a_newer_file_is_refused_with_the_remedy(tmp_path, told):
    newer = {**record_to_json(record("a")), "schema_version": 99}
    (tmp_path / "a.jsonl").write_text(json.dumps(newer) + "\n")
    with pytest.raises(CatalogError, match="reads up to") as refused:
        ids(tmp_path, told.append)
    assert "Upgrade peftbench" in refused.value.hint


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
