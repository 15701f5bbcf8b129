"""What must hold of every answer, whatever was asked: each function yields what does not, one short text a fault."""

from __future__ import annotations

import ast
import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""What a terminal would act on: all control characters but the end of a line and the tabulator."""
HARMFUL = re.compile("\x1b[][]|<script>alert")
"""The same for a browser, of what the fuzzer gives."""
LONGEST_REFUSAL = 6000
CODES = {"--check": 1, "--max": 1, "--fail-above": 1, "run": 3}
"""Exit codes other than 0 and 2, and the words that must be there for them."""
TEXTS = ("region", "provider", "instance_type", "source", "id", "suite", "case", "message", "notes", "citation")
"""Columns of CSV that hold what somebody wrote."""
SIGNED = ("headroom_bytes", "saves_bytes", "delta_bytes")


class Answer(NamedTuple):
    """What a command printed."""

    code: int
    out: str
    err: str


def answer_faults(words: tuple[str, ...], answer: Answer) -> Iterator[str]:
    """Of a command line."""
    if answer.code not in (0, 2) and not any(answer.code == CODES[word] for word in words if word in CODES):
        yield f"exit code {answer.code}"
    if answer.code == 2:
        yield from _refusal_faults(answer)
    for stream, printed in (("stdout", answer.out), ("stderr", answer.err)):
        page = stream == "stdout" and printed.startswith("<!DOCTYPE html>")  # scripts of libraries have what they like
        if found := (HARMFUL if page else RAW).search(printed):
            yield f"raw {found[0]!r} on {stream}"
        if "Traceback (most recent call last)" in printed:
            yield f"traceback on {stream}"
    if answer.code == 0 and _asked(words, "json") and not _helps(words):
        yield from _json_faults(answer.out)
    if answer.code == 0 and _asked(words, "jsonl") and not _helps(words):
        for line in answer.out.split("\n")[:-1]:
            yield from _json_faults(line)
    if answer.code == 0 and _asked(words, "csv") and not _helps(words):
        yield from csv_faults(answer.out)
    if answer.code == 0 and words[0] == "recipe" and not _helps(words) and answer.out:
        yield from _recipe_faults(answer.out)


def _recipe_faults(text: str) -> Iterator[str]:
    """Of a file for a tool: a script of Python, or YAML, which JSON is too."""
    import yaml

    try:
        if "\nimport " in text:
            names = {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
            yield from (f"the script has the name {name}" for name in names & {"inf", "nan", "null", "true", "false"})
        elif not isinstance(yaml.safe_load(text), dict):
            yield "the recipe is no mapping"
    except (SyntaxError, yaml.YAMLError):
        yield "the recipe cannot be read"


def page_faults(text: str) -> Iterator[str]:
    """Of a page that was written to a file."""
    if found := HARMFUL.search(text):
        yield f"raw {found[0]!r} in a page"


def _refusal_faults(answer: Answer) -> Iterator[str]:
    if answer.out:
        yield "stdout of a refusal is not empty"
    if answer.err.count("Error: ") != 1 and "\nError: " not in answer.err:
        yield "a refusal has no Error: line"
    if len(answer.err) > LONGEST_REFUSAL:
        yield "a refusal is very long"


def _asked(words: tuple[str, ...], form: str) -> bool:
    """Whether the answer is in this format: the last --format counts."""
    split = [part for word in words for part in (word.split("=", 1) if word.startswith("--format=") else (word,))]
    given = [value for name, value in pairwise(split) if name == "--format"]
    return bool(given) and given[-1] == form and not {"-o", "--output"} & {word.partition("=")[0] for word in words}


def _helps(words: tuple[str, ...]) -> bool:
    return bool({"-h", "--help", "--version"} & set(words))


def strictly(text: str) -> Any:
    """The JSON value. Raises ValueError for NaN, infinity and keys that come twice too."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise ValueError("a key comes twice")
        return dict(pairs)

    def never(name: str) -> None:
        raise ValueError(f"{name} is no JSON")

    return json.loads(text, object_pairs_hook=once, parse_constant=never)


def _json_faults(text: str) -> Iterator[str]:
    try:
        value = strictly(text)
    except ValueError as error:
        yield f"not strict JSON: {str(error).split(':')[0][:40]}"
        return
    yield from value_faults(value)
    for plan in value.get("plans", ()) if isinstance(value, dict) else ():
        yield from plan_faults(plan)


def value_faults(value: Any, name: str = "") -> Iterator[str]:
    """Of every number below: bytes and seconds are finite and not negative."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from value_faults(each, key if isinstance(key, str) else "")
    elif isinstance(value, list):
        for each in value:
            yield from value_faults(each, name)
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{name} is {value}"
    elif isinstance(value, (int, float)) and value < 0 and name.endswith(("_bytes", "_s")) and name not in SIGNED:
        yield f"{name} is negative"


def plan_faults(plan: dict[str, Any]) -> Iterator[str]:
    """Of a plan in JSON: parts add up, sizes are in order, the verdict is that of its figures."""
    memory, verdict, time = plan["memory"], plan.get("verdict"), plan.get("time")
    if memory:
        yield from _memory_faults(memory)
    if memory and verdict:
        yield from _verdict_faults(memory, verdict, plan["gpu"])
    if time and "step_s" in time and not 0 < time["step_low_s"] <= time["step_s"] <= time["step_high_s"]:
        yield "the time of a step is outside its band"
    for name in ("trainable_parameters", "adapter_file_bytes"):
        if (plan.get(name) or 0) < 0:
            yield f"{name} is negative"


def _memory_faults(memory: dict[str, Any]) -> Iterator[str]:
    sizes = [memory[f"{name}_bytes"] for name in ("allocated", "reserved", "device", "device_high")]
    if sizes != sorted(sizes) or memory["device_low_bytes"] > memory["device_bytes"] or sizes[0] <= 0:
        yield "allocated, reserved, device are not in order"
    for part in memory["components"]:
        if not 0 <= part["low_bytes"] <= part["bytes"] <= part["high_bytes"]:
            yield f"{part['part']} is outside its band"
    alive = [part["bytes"] for part in memory["components"] if memory["peak_phase"] in part["phases"]]
    if sum(alive) != memory["needed_bytes"]:
        yield "the parts do not add up to the peak"
    if memory["phases"][memory["peak_phase"]] != memory["needed_bytes"] or sizes[2] > memory["needed_bytes"]:
        yield "the peak is not that of its phase"


def _verdict_faults(memory: dict[str, Any], verdict: dict[str, Any], gpu: dict[str, Any]) -> Iterator[str]:
    if verdict["headroom_bytes"] != verdict["usable_bytes"] - verdict["required_bytes"]:
        yield "the headroom is not what is left"
    if verdict["required_bytes"] > verdict["usable_bytes"] and verdict["fit"] == "fits":
        yield "fits, but needs more than there is"
    if verdict["high_bytes"] <= verdict["usable_bytes"] and verdict["fit"] not in ("fits", None):
        yield "does not fit, but needs less than there is"
    if not 0 <= gpu["usable_bytes"] <= gpu["memory_bytes"]:
        yield "more is usable than the card has"


def csv_faults(text: str) -> Iterator[str]:
    """Of a table: every row has its columns, and bytes are whole numbers from 0 on."""
    rows = list(csv.reader(io.StringIO(text)))
    heading = rows[0] if rows else []
    for row in rows[1:]:
        if len(row) != len(heading):
            yield "a row of CSV has other columns than its heading"
            return
        for name, cell in zip(heading, row, strict=True):
            if name.endswith("_bytes") and name not in SIGNED and cell and not cell.isdecimal():
                yield f"{name} of CSV is no size"
            if cell in ("nan", "inf", "-inf", "NaN") and name not in TEXTS:
                yield f"{name} of CSV is {cell}"


# ── of two answers ──────────────────────────────────────────────────────────────────────────────────────────────────

Ask = Callable[[tuple[str, ...]], Answer]


def pair_faults(words: tuple[str, ...], answer: Answer, ask: Ask) -> Iterator[str]:
    """Of a good answer in JSON beside others: twice the same, the same in CSV, more memory is not worse."""
    if "doctor" not in words and ask(words) != answer and not {"run", "timeline"} & set(words):
        yield "the same line gives another answer"
    if words[0] != "plan" or answer.code or not _asked(words, "json") or "--max" in words:
        return
    document, table = strictly(answer.out), ask((*words, "--format", "csv"))
    if "--max" in words:
        yield from _maxima_faults(document["maxima"], table)
        return
    plans = document["plans"]
    yield from _table_faults(plans, table)
    if not {"--dry-run", "--check", "auto"} & set(words) and len(plans) == 1 and plans[0]["gpu"]:
        yield from _order_faults(words, plans[0], ask)


def _maxima_faults(maxima: list[dict[str, Any]], table: Answer) -> Iterator[str]:
    rows = list(csv.DictReader(io.StringIO(table.out)))
    if [(row["fits"], row["expected"]) for row in rows] != [(str(m["fits"]), str(m["expected"])) for m in maxima]:
        yield "CSV has other maxima than JSON"
    if any(each["fits"] > each["expected"] or (each["positions"] or each["fits"]) < each["fits"] for each in maxima):
        yield "the largest values are not in order"


def _table_faults(plans: list[dict[str, Any]], table: Answer) -> Iterator[str]:
    rows = list(csv.DictReader(io.StringIO(table.out)))
    if table.code not in (0, 1) or len(rows) != len(plans):
        yield "CSV has other plans than JSON"
        return
    for plan, row in zip(plans, rows, strict=True):
        for name in ("allocated_bytes", "reserved_bytes", "device_bytes", "device_low_bytes", "device_high_bytes"):
            if plan["memory"] and row[name] != str(plan["memory"][name]):
                yield f"{name} of CSV is not that of JSON"
        if plan.get("verdict") and row["fit"] != (plan["verdict"]["fit"] or ""):
            yield "the verdict of CSV is not that of JSON"


REMAINDERS = 0.01
"""What blocks that are not split add depends on how sizes divide: twice the tokens may have less of it."""


def _order_faults(words: tuple[str, ...], plan: dict[str, Any], ask: Ask) -> Iterator[str]:
    """Twice the sequences, or their length, do not need less; twice the memory of a card is not worse."""
    recipe = plan["recipe"]
    for option in ("micro-batch-size", "sequence-length") if recipe["task"] == "training" else ("batch-size",):
        more = ask((*words, f"--{option}", str(2 * recipe[option.replace("-", "_")])))
        if more.code == 0:
            (other,) = strictly(more.out)["plans"]
            if other["memory"]["allocated_bytes"] < (1 - REMAINDERS) * plan["memory"]["allocated_bytes"]:
                yield f"twice the {option} needs less"
    if "--gpu-memory" in words and plan["verdict"]["fit"] == "fits":
        larger = ask((*words, "--gpu-memory", f"{2 * plan['gpu']['memory_bytes']}B"))
        if larger.code or strictly(larger.out)["plans"][0]["verdict"]["fit"] != "fits":
            yield "it does not fit twice the memory"
