"""Tokens of a file: streamed whatever its size, counted where there is a tokenizer, and bad files are named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from peftbench.base.errors import CatalogError, SpecError
from peftbench.base.units import GIB, MIB
from peftbench.decide.choose.dataset import BYTES_PER_TOKEN, REPORT_BYTES, SAMPLE_BYTES, dataset_tokens, local_tokenizer


def counted(text: str) -> int:
    return len(text.split())


def test_a_text_file_goes_by_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("four" * 1000, encoding="utf-8")
    tokens, how = dataset_tokens(str(path))
    assert tokens.expected == pytest.approx(4000 / BYTES_PER_TOKEN)
    assert tokens.low < tokens.expected < tokens.high
    assert str(BYTES_PER_TOKEN) in how


def test_only_the_strings_of_jsonl_count(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [{"messages": [{"role": "user", "content": "ab cd"}], "score": 0.123456789}, {"text": "é"}, "x"]
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n", encoding="utf-8")
    assert "12 B" in dataset_tokens(str(path)).how  # user, ab cd, é in two bytes, x


def test_a_tokenizer_counts_all_of_a_small_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one two three"}\n{"text": "four"}\n', encoding="utf-8")
    tokens, how = dataset_tokens(str(path), counted)
    assert tokens == (4, 4, 4)
    assert "counted" in how


def test_a_large_file_goes_by_the_ratio_of_its_start(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("seven77 " * (2 * SAMPLE_BYTES // 8), encoding="utf-8")
    tokens, how = dataset_tokens(str(path), counted)
    assert tokens.expected == pytest.approx(2 * SAMPLE_BYTES / 8, rel=0.01)
    assert "first part" in how


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_a_file_is_streamed(tmp_path: Path, name: str) -> None:
    """What is in memory at once is a small part of it."""
    path = tmp_path / name
    line = json.dumps({"text": "x" * 10_000}) + "\n"
    path.write_text(line * (24 * MIB // len(line)), encoding="utf-8")
    tracemalloc.start()
    dataset_tokens(str(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < os.path.getsize(path) / 4


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_ten_gigabytes_of_nothing_are_refused_at_their_start(tmp_path: Path, name: str) -> None:
    """A sparse file: reading it to the end would take its size in memory or time."""
    path = tmp_path / name
    with open(path, "wb") as file:
        file.truncate(10 * GIB)
    with pytest.raises(SpecError, match=r"binary|longer"):
        dataset_tokens(str(path))


def test_a_mark_of_byte_order_and_half_a_character_are_read_over(tmp_path: Path) -> None:
    path = tmp_path / "a.JSONL"
    path.write_bytes(b'\xef\xbb\xbf{"text": "abc"}\n{"text": "\\ud800"}\n')
    assert "4 B" in dataset_tokens(str(path)).how


def test_how_much_is_read_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("x" * (3 * REPORT_BYTES), encoding="utf-8")
    shares: list[float] = []
    dataset_tokens(str(path), progress=shares.append)
    assert len(shares) == 3
    assert shares == sorted(shares) and shares[-1] == 1


def test_a_pipe_is_read_as_it_comes() -> None:
    words = REPORT_BYTES // 4 + 1
    written = f"import sys; sys.stdout.write('word' * {words})"
    source = subprocess.Popen([sys.executable, "-c", written], stdout=subprocess.PIPE)
    assert source.stdout
    shares: list[float] = []
    with source.stdout as pipe:
        tokens, _ = dataset_tokens(f"/dev/fd/{pipe.fileno()}", progress=shares.append)
    assert source.wait() == 0
    assert tokens.expected == pytest.approx(4 * words / BYTES_PER_TOKEN)
    assert shares == []


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.parquet", b"PAR1 text", "a table"),
        ("a.csv", b"text,label", "a table"),
        ("a.jsonl.gz", b"text", "compressed"),
        ("a.json", b'[{"t": "a"},\n {"t": "b"}]', "line 1 of 'a.json' is not JSON"),
        ("a.txt", b"", "has no text"),
        ("a.jsonl", b"\n\n", "has no text"),
        ("a.jsonl", b'{"n": 1}\n', "has no text"),
        ("a.txt", bytes(range(256)), "binary"),
        ("a.txt", b"abc\xc3", "binary"),
        ("a.jsonl", b'{"t": "a"}\n{"t": \n', "line 2 of 'a.jsonl' is not JSON"),
        ("a.jsonl", b'{"t": "\xff"}\n', "binary"),
        ("a.jsonl", b"[" * 100_000 + b"\n", "not JSON"),
        ("a.jsonl", b"9" * 4400 + b"\n", "not JSON"),
    ],
)
def test_a_bad_dataset_is_named(tmp_path: Path, name: str, content: bytes, expected: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(SpecError, match=expected):
        dataset_tokens(str(path))


def test_a_path_that_is_no_file(tmp_path: Path) -> None:
    for path in (tmp_path / "none.txt", tmp_path):
        with pytest.raises(CatalogError, match=r"No such file|is a folder, not a file"):
            dataset_tokens(str(path))


def test_a_pipe_that_nobody_writes_to_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.txt")
    with pytest.raises(SpecError, match="has no text"):
        dataset_tokens(str(tmp_path / "a.txt"))


def test_a_character_cut_by_a_chunk_is_whole_again(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a" + "é" * MIB, encoding="utf-8")
    assert "2.00 MiB" in dataset_tokens(str(path)).how


def test_a_tokenizer_beside_the_model_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    assert local_tokenizer(("org/name", str(tmp_path))) is None
    model = tokenizers.models.WordLevel({"one": 0, "two": 1, "[UNK]": 2}, unk_token="[UNK]")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    folder = tmp_path / "hub" / "models--org--name" / "snapshots" / "abc"
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    count = local_tokenizer(("org/name",))
    assert count and count("one two one") == 3


@pytest.mark.parametrize("vocabulary", ["2", '{"one": 0}'])  # no tokenizer, and one whose unknown word is missing
def test_a_broken_tokenizer_is_named(tmp_path: Path, vocabulary: str) -> None:
    pytest.importorskip("tokenizers")
    model = f'{{"type": "WordLevel", "vocab": {vocabulary}, "unk_token": "[UNK]"}}'
    (tmp_path / "tokenizer.json").write_text(f'{{"version": "1.0", "added_tokens": [], "model": {model}}}')
    (tmp_path / "data.txt").write_text("two")
    with pytest.raises(SpecError, match=r"cannot count with .*tokenizer\.json"):
        dataset_tokens(str(tmp_path / "data.txt"), local_tokenizer([str(tmp_path)]))
