"""Files are read where they are regular, of a bounded size and text; everything else is one sentence at once."""

import ast
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import peftbench
from peftbench.base.errors import CatalogError
from peftbench.base.files import open_at_once, open_regular, read_text, write_whole


def refusal(path: object, most_bytes: int = 1000) -> str:
    with pytest.raises(CatalogError) as caught:
        read_text(path, "Name a text.", most_bytes)  # type: ignore[arg-type]
    assert caught.value.hint == "Name a text."
    return caught.value.what


def test_text_comes_without_its_mark_and_with_plain_line_ends(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n\xc3\xa4")
    assert read_text(file, "") == "one\ntwo\nä"


def test_pipes_folders_and_devices_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert refusal(tmp_path / "pipe").endswith("is a pipe, not a file.")
    assert refusal(tmp_path).endswith("is a folder, not a file.")
    assert refusal("/dev/zero") == "/dev/zero is a device, not a file."
    with pytest.raises(CatalogError, match="is a pipe"):
        open_regular(tmp_path / "pipe", "")


def test_a_file_that_is_too_long_is_not_read_to_its_end(tmp_path: Path) -> None:
    file = tmp_path / "long"
    with open(file, "wb") as sparse:
        sparse.truncate(1 << 40)
    assert "has more than 1,000 bytes" in refusal(file)


def test_what_is_no_path_and_no_text_is_told(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"abc\xff")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert "byte 3 is 0xff" in refusal(tmp_path / "binary")
    assert "symbolic links" in refusal(tmp_path / "loop")
    assert "No such file" in refusal(tmp_path / "none")
    assert "null byte" in refusal("a\0b")
    assert "File name too long" in refusal("x" * 5000)


def test_a_pipe_with_nobody_at_its_other_end_is_opened_without_waiting(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with open(pipe, "rb", opener=open_at_once) as reading:
        with open(pipe, "wb", opener=open_at_once) as writing:
            writing.write(b"x" * 10_000)
        assert len(reading.read()) == 10_000 and not reading.read()
    with pytest.raises(OSError, match="No such device"):
        open_at_once(pipe, os.O_WRONLY)


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    link.symlink_to(file)
    write_whole(link, b"old")
    file.chmod(0o600)
    write_whole(link, b"new")
    assert file.read_bytes() == b"new" and link.is_symlink() and file.stat().st_mode & 0o777 == 0o600
    with small_files(10), pytest.raises(OSError, match="too large"):
        write_whole(file, bytes(1000))
    assert file.read_bytes() == b"new"
    with small_files(10), pytest.raises(OSError, match="too large"):
        write_whole(tmp_path / "other", bytes(1000))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link"]


@contextmanager
def small_files(most: int) -> Iterator[None]:
    """A disk that is full after so many bytes of a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_cannot_be_replaced_is_written_or_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        write_whole("/dev/full", b"x")
    for path in (tmp_path, f"{tmp_path}/new/", tmp_path / "none" / "file", ""):
        with pytest.raises(OSError, match="directory"):
            write_whole(path, b"x")
    write_whole("/dev/null", b"x")
    assert Path("/dev/null").is_char_device() and list(tmp_path.iterdir()) == []


OWN = {
    "catalog/gpus", "catalog/published_effects", "catalog/prices", "catalog/checkpoints/entry", "recipes/unread",
    "recipes/tools/script", "measure/quality/text", "dryrun/cache", "measure/doctor", "decide/adapter_config",
    "libraries/versions",
}  # fmt: skip
"""Modules that read files which the package, or a library, ships, or that it wrote itself."""
SYSTEM = {"measure/device/host_memory", "measure/worker", "libraries/worker", "base/screen"}
"""Modules that read /proc or open /dev/null."""
WRITERS = {"records/file", "cli/ask/format_option"}
"""Modules that write where users say."""


def openings(tree: ast.AST) -> Iterator[int]:
    """Lines that open a file or read one whole."""
    for node in ast.walk(tree):
        called = node.func if isinstance(node, ast.Call) else None
        if isinstance(called, ast.Name) and called.id == "open":
            yield node.lineno  # type: ignore[attr-defined]
        if isinstance(called, ast.Attribute):
            whole = called.attr in ("read_text", "read_bytes", "open") or ast.unparse(called) == "json.load"
            if whole and ast.unparse(called.value) not in ("webbrowser",):
                yield called.lineno


def test_one_module_reads_the_files_of_users() -> None:
    package = Path(peftbench.__file__).parent
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).with_suffix("").as_posix()
        if name not in OWN | SYSTEM | WRITERS | {"base/files"}:
            assert list(openings(ast.parse(path.read_text(encoding="utf-8")))) == [], path


def test_an_opening_is_seen() -> None:
    for code in ("open(x)", "p.read_text()", "Path(x).read_bytes()", "json.load(f)", "gzip.open(x)", "os.open(x, 0)"):
        assert list(openings(ast.parse(code))) == [1]
