"""Types the commands of a ranking, and says where a plan has other figures than its row: memory, time and money."""

from __future__ import annotations

import json
import random
import re
import shlex
from collections.abc import Iterator
from typing import Any

from cli_runner import run
from random_questions import ADAPTER, CARDS, MODELS, QUANTIZATION, RECIPE, SWITCHES, some, switches
from typed_advice import Typed

from peftbench.estimate.time.cost import Band, cost_of

_OWN = re.compile(r"peftbench plan (?:[^;]*)")
_RATES = ("tokens_per_s", "tokens_per_s_low", "tokens_per_s_high")
_BYTES = ("required_bytes", "high_bytes", "usable_bytes")


def random_ranking(chance: random.Random) -> list[str]:
    """A question of `choose` with options by chance."""
    question = ["choose", "--model", chance.choice(MODELS), "--tokens", chance.choice(("10M", "1.5B"))]
    methods = chance.choice(((), ("full",), ("lora",), ("qlora",), ("lora", "qlora"), ("oft",), ("prefix-tuning",)))
    question += [word for method in methods for word in ("--method", method)]
    searched = ("--micro-batch-size", "--gradient-accumulation-steps")
    question += some(chance, {name: each for name, each in RECIPE.items() if name not in searched}, 0.1)
    question += [each for each in switches(chance, SWITCHES, 0.1) if each != "--no-gradient-checkpointing"]
    if {"lora", "qlora"} & {*methods} or not methods:
        question += some(chance, ADAPTER, 0.15)
    if "qlora" in methods or not methods:
        question += some(chance, QUANTIZATION, 0.1)
    where = {
        "--gpu": CARDS, "--own": ("rtx4090", "2xrtx3090", "t4"), "--parallel": ("ddp", "fsdp", "zero2", "zero3"),
        "--max-gpus": ("1", "8"), "--framework": ("unsloth", "torchtune"), "--setup": ("0", "1h"),
        "--batch-size": ("6", "64"),
    }  # fmt: skip
    return [*question, *some(chance, where, 0.2), *switches(chance, ("--cpu-offload",), 0.1)]


def rows_of(question: list[str], chance: random.Random, most: int = 20) -> Iterator[Typed]:
    """The commands of some of the rows, and those of one's own cards, typed; nothing where nothing fits."""
    result = run(*question, "--format", "json")
    if result.exit_code:
        if "Error: " not in result.stderr:
            yield Typed("crash", shlex.join(question), "", repr(result.exception))
        return
    document = json.loads(result.stdout)
    rows = list({row["command"]: row for row in document["choices"]}.values())
    for row in chance.sample(rows, min(most, len(rows))):
        yield Typed("row", shlex.join(question), row["command"], _difference(row, document))
    for sentence in document["own"]:
        for command in _OWN.findall(sentence):
            plan = _plan(command)
            problem = plan if isinstance(plan, str) else "" if plan["verdict"]["fit"] == "fits" else "does not fit"
            yield Typed("own", shlex.join(question), command, problem)


def _plan(command: str) -> Any:
    result = run(*shlex.split(command)[1:], "--format", "json")
    if result.exit_code:
        return result.stderr or repr(result.exception)
    (plan,) = json.loads(result.stdout)["plans"]
    return plan


def _difference(row: dict[str, Any], document: dict[str, Any]) -> str:
    """The plan's figures at the row's price, to the last digit."""
    plan = _plan(row["command"])
    if isinstance(plan, str):
        return plan
    waits = 0.0 if row["kind"] == "own" else document["setup_hours"]
    rate = Band(*(plan["time"][name] for name in _RATES))
    cost = cost_of(Band(**document["tokens"]), rate, row["usd_per_hour"], waits)
    seen = {name: plan["verdict"][name] for name in _BYTES} | {"tokens_per_s": plan["time"]["tokens_per_s"]}
    for name, band in (("hours", cost.hours), ("usd", cost.usd)):
        seen |= {name: band.expected, f"{name}_low": band.low, f"{name}_high": band.high}
    seen["fits"] = plan["verdict"]["fit"] == "fits"
    wrong = [f"{name}: {each}, not {row.get(name)}" for name, each in seen.items() if each != row.get(name, True)]
    return "; ".join(wrong)
