"""Try one input in this process, and say what was wrong with what came of it."""

from __future__ import annotations

import gzip
import os
import re
import resource
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
from click.testing import CliRunner
from fuzz.case import Case, chance_of
from fuzz.documents import spoilt
from fuzz.oracles import Answer, answer_faults, page_faults, pair_faults
from fuzz.python_calls import call_faults
from fuzz.world import folder_of, limited

from peftbench.cli import main

PAIRED_SHARE = 0.15
"""Of the command lines, how many are compared with other answers too."""
MOST_MEMORY_BYTES = 400 << 20
"""What one input may add to the memory of this process."""


class Fault(NamedTuple):
    """What was wrong; equal for inputs that find the same."""

    what: str
    """A short name: the type of the exception, or the promise that was broken."""
    where: str
    """The deepest function of peftbench, or the verb."""
    detail: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """What makes it the same fault."""
        return self.what, self.where


def try_case(case: Case, seed: int = 0) -> list[Fault]:
    """Every fault of this input."""
    before = _memory_bytes()
    faults = list(_guarded(case, seed))
    if _memory_bytes() - before > MOST_MEMORY_BYTES:
        faults.append(Fault("memory", case.kind, f"{(_memory_bytes() - before) >> 20} MiB more"))
    return faults


def _memory_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _guarded(case: Case, seed: int) -> Iterator[Fault]:
    try:
        with folder_of(case) as environment:
            if case.call:
                with limited():
                    yield from (Fault(what, case.call[0], detail) for what, detail in call_faults(case.call))
            else:
                yield from _line_faults(case, environment, chance_of(seed, f"{case.kind} pairs", case.number))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a panic of Rust is no Exception
        yield _fault_of(error)


def _line_faults(case: Case, environment: dict[str, str], chance: object) -> Iterator[Fault]:
    def ask(words: tuple[str, ...]) -> Answer:
        with limited():
            done = CliRunner().invoke(main, list(words), prog_name="peftbench", env=environment)
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Answer(done.exit_code, done.stdout, done.stderr)

    answer = ask(case.words)
    verb = case.words[0] if case.words else ""
    yield from (Fault(what, verb, answer.err[-300:]) for what in answer_faults(case.words, answer))
    pages = [path for path in Path().glob("*.html") if path.is_file() and path.name not in dict(case.files)]
    yield from (Fault(what, verb) for path in pages for what in page_faults(path.read_text(encoding="utf-8")))
    if case.keeps_good_lines and answer.code and not re.search("Upgrade|newer|of several", answer.err):
        yield Fault("a wrong record costs the others", verb, answer.err[-300:])
    if case.never_stops and answer.code:
        yield Fault("a file that nobody named stops the answer", verb, answer.err[-300:])
    if case.spoils_cache:
        _spoil(Path(environment["PEFTBENCH_CACHE"]), chance)
        again = ask(case.words)
        yield from (
            Fault(what, f"{verb} from the cache", again.err[-300:]) for what in answer_faults(case.words, again)
        )
        if again.out != answer.out:
            yield Fault("a spoilt cache changes the answer", verb, again.err[-300:])
    elif answer.code == 0 and chance.random() < PAIRED_SHARE and "-o" not in case.words and "--out" not in case.words:
        yield from (Fault(what, verb) for what in pair_faults(case.words, answer, ask))


def _spoil(folder: Path, chance) -> None:
    for path in folder.glob("*.json.gz"):
        content = path.read_bytes()
        if chance.random() < 0.8:
            content = gzip.compress(spoilt(gzip.decompress(content), chance), 1)
        else:
            content = spoilt(content, chance)
        path.write_bytes(content)


def _fault_of(error: BaseException) -> Fault:
    """By its type and the deepest function of peftbench."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if f"{os.sep}peftbench{os.sep}" in frame.filename]
    last = own[-1] if own else frames[-1]
    place = last.filename.rpartition(f"{os.sep}peftbench{os.sep}")[2]
    detail = " ".join(str(error).split())[:200] if not isinstance(error, click.ClickException) else error.message
    return Fault(type(error).__name__, f"{place}:{last.name}", f"line {last.lineno}: {detail}")
