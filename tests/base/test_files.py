"""Files are read where they are regular, of a bounded size and text; everything else is one sentence at once."""

import os
from pathlib import Path

import pytest

from peftbench.base.errors import CatalogError
from peftbench.base.files import open_at_once, open_regular, read_text


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
