"""The way out to a terminal: escapes of others are shown as text, in whatever the stream can encode."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from peftbench.base import screen
from peftbench.base.screen import encodable, painted, redraw, say, take_any_character, tell


def test_escapes_are_written_out_and_lines_kept(capsys: pytest.CaptureFixture[str]) -> None:
    say("one\n\x1b[2Jtwo\r")
    tell("a\nb\x07")
    redraw("\x1b[A")
    shown = capsys.readouterr()
    assert shown.out == "one\n\\x1b[2Jtwo\\r\n"
    assert shown.err == "note  a\\nb\\x07\n\r\\x1b[A"


def test_of_escapes_only_a_verdict_in_its_colour_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stdout", stream)
    say(f"{painted('fits')} \x1b[32mother\x1b[0m")
    assert stream.buffer.getvalue().decode() == "\x1b[32mfits\x1b[0m \\x1b[32mother\\x1b[0m\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437", "utf-8"])
def test_no_stream_refuses_a_character(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
    monkeypatch.setattr("sys.stdout", stream)
    take_any_character()
    say("█ 9–11 \udcff 模型")
    print("模型 \ud800", file=stream, flush=True)
    assert stream.buffer.getvalue()  # type: ignore[attr-defined]


def test_a_stream_without_utf_8_gets_ascii() -> None:
    assert encodable("██▌ 9.31–11.40 × 2 · —", "ascii") == "### 9.31-11.40 x 2 - -"
    assert encodable("8¹", "ascii") == "8^1"
    assert encodable("██▌", "utf-8") == "██▌"


def test_the_number_of_a_closed_stream_is_taken_by_no_file(tmp_path: Path) -> None:
    code = (
        "import os, sys; from peftbench.base.screen import fill_closed_streams, say, tell; fill_closed_streams(); "
        "say('an answer'); tell('a note'); print(open('file', 'w').fileno(), file=open('number', 'w'))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(screen.__file__).parents[2])}
    command = f"'{sys.executable}' -c \"{code}\" <&- >&- 2>&-"
    subprocess.run(["sh", "-c", command], cwd=tmp_path, env=environment, check=True)
    assert int((tmp_path / "number").read_text()) > 2
