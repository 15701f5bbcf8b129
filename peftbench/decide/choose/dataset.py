"""How many tokens a file of training text has: counted with the model's tokenizer or estimated from its bytes."""

from __future__ import annotations

import codecs
import glob
import os.path
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any, NamedTuple

from peftbench.base.errors import SpecError
from peftbench.base.files import open_regular, unreadable
from peftbench.base.units import KIB, MIB, human_bytes
from peftbench.estimate.time.cost import Band

CHUNK_BYTES = MIB
REPORT_BYTES = 16 * MIB
"""How much text is read between two reports of progress."""
LONGEST_LINE_BYTES = 64 * MIB
"""A JSON line has to be in memory as a whole; a longer one is no sample of a data set."""
SAMPLE_BYTES = 4 * MIB
"""How much text the tokenizer reads; the rest goes by its ratio."""
PIECE_CHARACTERS = 16 * KIB
JSON_LINES = (".jsonl", ".ndjson", ".json")
"""A .json file of one object a line is read; one that is an array is refused."""
COMPRESSED = frozenset((".gz", ".zip", ".zst", ".bz2", ".xz", ".7z"))
TABLES = frozenset((".parquet", ".arrow", ".feather", ".orc", ".csv", ".tsv", ".xlsx"))

BYTES_PER_TOKEN = 3.94
"""English text under a vocabulary of 128,000: Llama 3 against 3.17 of Llama 2's 32,000 (arXiv 2407.21783, § 3.2)."""
FEWEST_BYTES_PER_TOKEN = 3.17
SAMPLE_ERROR = 0.05
"""How far the rest of a file may lie from its first part; a guess."""

Counter = Callable[[str], int]
"""The tokens of a text."""


class Dataset(NamedTuple):
    """The tokens of a file, and how they were found."""

    tokens: Band
    how: str


class _Sums:
    """What was seen so far: all bytes of text, and how many tokens the first of them are."""

    def __init__(self, count: Counter | None) -> None:
        self.count = count
        self.text_bytes = self.sampled_bytes = self.sampled_tokens = 0

    def add(self, text: str) -> None:
        size = len(text) if text.isascii() else len(text.encode(errors="replace"))  # half a surrogate pair is no text
        self.text_bytes += size
        if self.count and self.sampled_bytes < SAMPLE_BYTES:
            pieces = (text[start : start + PIECE_CHARACTERS] for start in range(0, len(text), PIECE_CHARACTERS))
            self.sampled_tokens += sum(map(self.count, pieces))
            self.sampled_bytes += size


def dataset_tokens(
    path: str, tokenizer: Counter | None = None, progress: Callable[[float], None] | None = None
) -> Dataset:
    """Count the tokens of a text file, or of all strings of a .jsonl file; raises SpecError where it has none.

    At most one line, or 1 MiB of a text, is in memory at a time. `progress` is called with the share that is read.
    """
    name = os.path.basename(path)[:60]
    _check_ending(name)
    sums = _Sums(tokenizer)
    try:
        with open_regular(path, "Give the path of a jsonl or text file.", pipes=True) as file:
            size, reported = os.fstat(file.fileno()).st_size, 0
            progress = progress if file.seekable() else None  # a pipe does not say how much is to come
            for text in _json_texts(file, name) if path.lower().endswith(JSON_LINES) else _texts(file, name):
                sums.add(text)
                if progress and sums.text_bytes >= reported + REPORT_BYTES:
                    reported = sums.text_bytes
                    progress(file.tell() / size)
    except OSError as error:
        raise unreadable(path, error, "Give the path of a jsonl or text file.") from None
    if not sums.text_bytes:
        raise SpecError(f"{name!r} has no text.", "Give a jsonl or text file, or --tokens 50M.")
    return _dataset(sums)


def _check_ending(name: str) -> None:
    """Raise SpecError for the endings of files that are neither text nor jsonl, whatever their bytes look like."""
    ending = os.path.splitext(name)[1].lower()
    if ending in COMPRESSED:
        raise SpecError(f"{name!r} is compressed.", "Decompress it first, or give --tokens 50M.")
    if ending in TABLES:
        hint = "Write it as jsonl first, as in Dataset.to_json of Hugging Face's datasets, or give --tokens 50M."
        raise SpecError(f"{name!r} is a table, not text or jsonl.", hint)


def _dataset(sums: _Sums) -> Dataset:
    if not sums.sampled_tokens:
        least = sums.text_bytes / (2 * BYTES_PER_TOKEN - FEWEST_BYTES_PER_TOKEN)
        band = Band(sums.text_bytes / BYTES_PER_TOKEN, least, sums.text_bytes / FEWEST_BYTES_PER_TOKEN)
        how = f"{human_bytes(sums.text_bytes)} of text at {BYTES_PER_TOKEN} B a token, as of English; code takes more"
        return Dataset(band, how)
    if sums.sampled_bytes == sums.text_bytes:
        return Dataset(Band(*3 * (sums.sampled_tokens,)), "counted with the model's tokenizer")
    ratio = sums.sampled_bytes / sums.sampled_tokens
    tokens = sums.text_bytes / ratio
    how = f"{human_bytes(sums.text_bytes)} of text at {ratio:.2f} B a token, the tokenizer's over its first part"
    return Dataset(Band(tokens, tokens * (1 - SAMPLE_ERROR), tokens * (1 + SAMPLE_ERROR)), how)


def _texts(file: IO[bytes], name: str) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    while chunk := file.read(CHUNK_BYTES):
        yield _decoded(decoder.decode, chunk, name)
    _decoded(lambda rest: decoder.decode(rest, final=True), b"", name)


def _json_texts(file: IO[bytes], name: str) -> Iterator[str]:
    from json import loads

    number = 0
    while line := file.readline(LONGEST_LINE_BYTES):
        number += 1
        if len(line) == LONGEST_LINE_BYTES:
            what = f"line {number} of {name!r} is longer than {human_bytes(LONGEST_LINE_BYTES)}."
            raise SpecError(what, "A jsonl file has one sample a line.")
        text = _decoded(bytes.decode, line, name).lstrip("\ufeff").strip()
        try:
            yield from _strings(loads(text)) if text else ()
        except (ValueError, RecursionError):  # a number of thousands of digits is a ValueError too
            hint = "A jsonl file has one JSON object a line; name a text file .txt."
            if number == 1 and text.startswith("["):
                hint = "An array over several lines becomes jsonl by: jq -c '.[]' FILE."
            raise SpecError(f"line {number} of {name!r} is not JSON.", hint) from None


def _decoded(decode: Callable[[bytes], str], chunk: bytes, name: str) -> str:
    try:
        if b"\0" not in chunk:
            return decode(chunk)
    except UnicodeDecodeError:
        pass
    raise SpecError(f"{name!r} is binary, not text.", "Give a jsonl or text file in UTF-8, or --tokens 50M.")


def _strings(value: Any) -> Iterable[str]:
    """Every string of a JSON value: prompts, answers and messages alike."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _strings(each)


def local_tokenizer(names: Iterable[str]) -> Counter | None:
    """A counter from the model's tokenizer.json, beside its config or in the Hub's cache; None where there is none.

    Raises SpecError for a file that the tokenizers library cannot use, as the counter does.
    """
    path = next((found for name in names for found in _tokenizer_files(name)), None)
    if path is None:
        return None
    try:
        from tokenizers import Tokenizer  # of transformers; planning does without
    except ImportError:
        return None
    with _usable(path):
        tokenizer = Tokenizer.from_file(path)

    def count(text: str) -> int:
        with _usable(path):
            return len(tokenizer.encode(text, add_special_tokens=False).ids)

    return count


@contextmanager
def _usable(path: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # all that the library raises
        why = " ".join(str(error).split())[:80]
        hint = "Without that file tokens are estimated from the bytes; or give --tokens 50M."
        raise SpecError(f"cannot count with {path}: {why}.", hint) from None


def _tokenizer_files(name: str) -> Iterable[str]:
    """Where a tokenizer.json may be. Source: huggingface_hub's cache layout, models--ORG--NAME/snapshots/COMMIT/."""
    folder = name if os.path.isdir(name) else os.path.dirname(name)
    beside = [os.path.join(folder, "tokenizer.json")] if os.path.exists(name) else []
    home = os.environ.get("HF_HOME") or os.path.join(os.path.expanduser("~"), ".cache", "huggingface")
    cache = os.environ.get("HF_HUB_CACHE") or os.path.join(home, "hub")
    snapshots = os.path.join(glob.escape(cache), "models--" + glob.escape(name.replace("/", "--")), "snapshots", "*")
    return [path for path in (*beside, *glob.glob(os.path.join(snapshots, "tokenizer.json"))) if os.path.isfile(path)]
