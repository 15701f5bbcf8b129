"""Types the advice of an answer, and says where that leads elsewhere than was printed: to the byte, by the command."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from cli_runner import run

from peftbench.cli.plan import plan as plan_command
from peftbench.decide.plan.savings import SEQUENCE_STEP

Words = Sequence[str]
_COMMAND = re.compile(r"^  peftbench plan(?:.*\\\n)*.*$", re.MULTILINE)
_COUNT = re.compile(r"^fits on (\d+) × .*: (--gpus .*)\.$")
_LONGEST = re.compile(r"fits up to --sequence-length\s+(\d+)(, all positions)?")


class Typed(NamedTuple):
    """A piece of advice that was typed."""

    kind: str
    question: str
    typed: str
    problem: str
    """Empty where it leads to what was printed."""


@lru_cache(maxsize=4096)
def _document(words: tuple[str, ...]) -> Any:
    """The answer in JSON; the error as text where there is none."""
    result = run(*words, "--format", "json")
    if result.exit_code != 0:
        return result.stderr or repr(result.exception)
    return json.loads(result.stdout)


def advice_of(question: Words, ways: int = 3) -> list[Typed]:
    """Every piece of advice on one question of `plan`, typed; nothing for a question that is refused.

    `ways` are how many ways of typing a change are tried: its command, its arguments after the question, in place.
    """
    document = _document(tuple(question))
    if isinstance(document, str):
        return []
    found = [typed for plan in document["plans"] for typed in _of_plan(question, plan, ways)]
    return [*found, *_of_screen(question, document)]


# ── JSON ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _of_plan(question: Words, plan: dict[str, Any], ways: int) -> Iterator[Typed]:
    several = _methods(question) > 1 or not (_methods(question) or _read(question))
    for change in plan["changes"]:
        whole = _shell(change["command"])
        yield _judged("command", question, whole, plan, change)
        if several and _fewer(question, whole):
            continue  # of several methods, some of what was typed says nothing to this one
        if ways > 1:
            yield _judged("appended", question, [*question, *change["arguments"]], plan, change)
        if ways > 2 and not several:
            in_place = [*without(_alone(question, plan["method"]), change["arguments"]), *change["arguments"]]
            yield _judged("in place", question, in_place, plan, change)
    for note in plan["notes"]:
        if match := _COUNT.match(note):
            typed = [*_alone(question, plan["method"]), *shlex.split(match[2])]
            yield Typed("count", shlex.join(question), shlex.join(typed), _count_problem(typed, plan, int(match[1])))


def _alone(question: Words, method: str) -> list[str]:
    """The question about one of its methods, without the options that it does not have."""
    alone = [*without(question, ("--method",)), "--method", method]
    while match := re.match(r"Error: (--\S+)(?: \S+)? has no effect", str(_document(tuple(alone)))):
        alone = without(alone, (match[1],))
    return alone


def _judged(kind: str, question: Words, typed: list[str], plan: dict[str, Any], change: dict[str, Any]) -> Typed:
    method = _method_after(plan["method"], change["arguments"])
    problem = _problem(_plan_of(typed, plan["gpu"]["name"], method), change)
    return Typed(kind, shlex.join(question), shlex.join(typed), problem)


def _problem(found: dict[str, Any] | str, change: dict[str, Any]) -> str:
    """Bytes and verdict, exactly."""
    if isinstance(found, str):
        return found
    seen = (found["memory"]["device_bytes"], found["verdict"]["fit"])
    wanted = (change["device_bytes"], change["fit"])
    return "" if seen == wanted else f"{seen}, not {wanted}"


def _count_problem(typed: list[str], plan: dict[str, Any], gpus: int) -> str:
    found = _plan_of(typed, plan["gpu"]["name"], plan["method"])
    if isinstance(found, str):
        return found
    seen = (found["verdict"]["fit"], found["recipe"]["gpus"])
    said = None if found["unpriced"] else "fits"  # a file's tool that adds what is not priced leaves it open
    return "" if seen == (said, gpus) else f"{seen}, not on {gpus}"


def _plan_of(typed: Words, card: str, method: str) -> dict[str, Any] | str:
    document = _document(tuple(typed))
    if isinstance(document, str):
        return document
    plans = [each for each in document["plans"] if each["gpu"]["name"] == card and each["method"] == method]
    return plans[0] if len(plans) == 1 else f"{len(plans)} plans of {method} on {card}"


def _method_after(method: str, arguments: Words) -> str:
    return arguments[arguments.index("--method") + 1] if "--method" in arguments else method


# ── screens ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _of_screen(question: Words, document: dict[str, Any]) -> Iterator[Typed]:
    """The command below the changes, and the longest sequence that fits."""
    if len({plan["gpu"]["name"] for plan in document["plans"] if plan["gpu"]}) != 1:
        return
    shown = run(*question).stdout
    for match in _COMMAND.finditer(shown):
        typed = _shell(match[0])
        yield Typed("screen", shlex.join(question), shlex.join(typed), _command_problem(typed, document))
    if match := _LONGEST.search(" ".join(shown.split())):
        yield _longest(question, int(match[1]), bool(match[2]), document["plans"][0])


def _shell(text: str) -> list[str]:
    """The words that a shell makes of what is printed, without the command's own name."""
    program, verb, *words = shlex.split(text.replace("\\\n", ""))
    assert (program, verb) == ("peftbench", "plan")
    return ["plan", *words]


def _command_problem(typed: list[str], document: dict[str, Any]) -> str:
    """It leads to the nearest change of the plan that is looked at closer; which one that is, its figures say."""
    answer = _document(tuple(typed))
    if isinstance(answer, str):
        return answer
    (found,) = answer["plans"]
    nearest = [min(p["changes"], key=lambda c: ("fits", "tight", "risky", "does_not_fit").index(c["fit"]))
               for p in document["plans"] if p["changes"]]  # fmt: skip
    problems = [_problem(found, change) for change in nearest]
    return "" if "" in problems else "; ".join(problems) or "no change is printed"


def _longest(question: Words, length: int, all_positions: bool, plan: dict[str, Any]) -> Typed:
    """It fits, and a step more does not."""

    def fits(length: int) -> bool | str:
        typed = [*question, "--sequence-length", str(length)]
        found = _plan_of(typed, plan["gpu"]["name"], plan["method"])
        return found if isinstance(found, str) else found["verdict"]["fit"] == "fits"

    step = SEQUENCE_STEP if length >= SEQUENCE_STEP else 1
    seen = (fits(length), not all_positions and fits(length + step) is True)
    problem = "" if seen == (True, False) else f"{length} fits: {seen[0]}; {length + step} fits: {seen[1]}"
    return Typed("longest", shlex.join(question), f"--sequence-length {length}", problem)


# ── words ───────────────────────────────────────────────────────────────────────────────────────────────────────────

_PARAMS = {name: param for param in plan_command.params for name in (*param.opts, *param.secondary_opts)}


def without(words: Words, named: Iterable[str]) -> list[str]:
    """The command line without the options that `named` has, and their values."""
    dropped = {_PARAMS[word].name for word in named if word in _PARAMS}
    kept, left = [words[0]], list(words[1:])
    while left:
        param = _PARAMS[left[0]]
        size = 1 if getattr(param, "is_flag", False) else 2
        kept += [] if param.name in dropped else left[:size]
        left = left[size:]
    return kept


def _fewer(question: Words, typed: Words) -> bool:
    """Whether options of the question are missing in what is typed."""
    named, kept = ({_PARAMS[word].name for word in words if word in _PARAMS} for words in (question, typed))
    return not named <= kept | {"gpu", "gpu_memory"}


def _methods(question: Words) -> int:
    return sum(word == "--method" for word in question)


def _read(question: Words) -> bool:
    return "--from" in question or "--adapter-config" in question
