"""Many inputs one after another: how they are drawn, and the faults they find, each once with its shortest input."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from fuzz.case import Case, chance_of
from fuzz.command_lines import lines
from fuzz.files import files
from fuzz.python_calls import calls
from fuzz.shrink import shortest
from fuzz.trial import Fault, try_case
from fuzz.world import no_children

KINDS = {"line": lines, "file": files, "call": calls}
ORDER = ("line",) * 11 + ("file",) * 6 + ("call",) * 3
"""Of twenty inputs in turn: what costs least for each fault that it found comes most often."""


class Found(NamedTuple):
    """A fault, and the first input that found it."""

    fault: Fault
    case: Case
    times: int = 1


def case_of(seed: int, number: int, kind: str = "") -> Case:
    """The input of this number: `kind` is line, file or call; by default whose turn it is."""
    kind = kind or ORDER[number % len(ORDER)]
    return KINDS[kind](chance_of(seed, kind, number), kind, number)


def numbered(seed: int, first: int, count: int, kind: str = "") -> Iterator[Case]:
    """So many inputs, beginning with this one."""
    return (case_of(seed, number, kind) for number in range(first, first + count))


def run(cases: Iterator[Case], seed: int, before: Callable[[Case], object] = lambda case: None) -> list[Found]:
    """Try them all. `before` is called with each; what it returns as False ends the campaign."""
    found: dict[tuple[str, str], Found] = {}
    with no_children():
        for case in cases:
            if before(case) is False:
                break
            for fault in try_case(case, seed):
                known = found.get(fault.key)
                found[fault.key] = known._replace(times=known.times + 1) if known else Found(fault, case)
    return list(found.values())


def told(found: Found, seed: int) -> str:
    """A fault for people: what, where, how often, the shortest input that shows it, and how to repeat it."""
    with no_children():
        short = shortest(found.case, found.fault, seed)
    detail, kind, number = " ".join(found.fault.detail.split()), found.case.kind, found.case.number
    return (
        f"{found.fault.what} in {found.fault.where}, {found.times} times: {detail}\n"
        f"  {short.text}\n  repeat: make fuzz-one SEED={seed} KIND={kind} NUMBER={number}"
    )
