"""Make an input shorter that still shows its fault: words, arguments and lines are left out while it does."""

from __future__ import annotations

from collections.abc import Iterator

from fuzz.case import Case
from fuzz.trial import Fault, try_case

MOST_TRIALS = 150
AS_IT_IS = ("Hang", "slow", "memory", "a wrong record costs the others", "a file that nobody named stops the answer")
"""Faults that take too long to try again and again, or that a shorter input only seems to have."""


def shortest(case: Case, fault: Fault, seed: int) -> Case:
    """The shortest that was found in MOST_TRIALS trials."""
    if fault.what in AS_IT_IS:
        return case
    tried = 0
    while True:
        for shorter in _shorter(case):
            tried += 1
            if tried > MOST_TRIALS:
                return case
            if any(found.key == fault.key for found in try_case(shorter, seed)):
                case = shorter
                break
        else:
            return case


def _shorter(case: Case) -> Iterator[Case]:
    """Everything that is one piece shorter, the largest pieces first."""
    if case.call:
        name, given = case.call
        for left_out in given:
            yield case._replace(call=(name, {key: value for key, value in given.items() if key != left_out}))
        return
    for length in (2, 1):
        for start in range(1, len(case.words) - length + 1):
            if length == 1 or case.words[start].startswith("-"):
                yield case._replace(words=case.words[:start] + case.words[start + length :])
    for place, (name, content) in enumerate(case.files):
        for part in _parts_left(content):
            yield case._replace(files=(*case.files[:place], (name, part), *case.files[place + 1 :]))


def _parts_left(content: bytes) -> Iterator[bytes]:
    """The text without one of its lines, or of what stands between commas of one long line."""
    for end in (b"\n", b", "):
        pieces = content.split(end)
        if 1 < len(pieces) < 200:
            for size in {max(len(pieces) // 4, 1), 1}:
                for start in range(0, len(pieces), size):
                    yield end.join(pieces[:start] + pieces[start + size :])
