"""Writes recipes for other tools and reads them back: what the file says has the bytes of what was asked."""

from __future__ import annotations

import json
import random
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cli_runner import run
from random_questions import MODELS, QUANTIZATION, RECIPE, SEVERAL, SWITCHES, model_path, some, switches
from random_questions import QUANTIZATION_SWITCHES as UPCASTS

FILES = {"transformers": "train.py", "trl": "trl.yaml", "axolotl": "axolotl.yml", "llamafactory": "llamafactory.yaml"}
LAUNCHERS = {"accelerate": "accelerate.yaml", "deepspeed": "ds.json"}
ADAPTER: dict[str, tuple[str, ...]] = {
    "--r": ("1", "8", "64"), "--target-modules": ("all-linear", "q_proj,v_proj"),
    "--adapter-dtype": ("float32", "bfloat16"), "--lora-dropout": ("0.05", "0.1234567890123"), "--lora-alpha": ("7",),
}  # fmt: skip
_OTHERWISE = re.compile(r"^\S+ does otherwise: (.*)$", re.MULTILINE)
_PLAN_IT = re.compile(r"^# Plan it: (.*)$", re.MULTILINE)


class Trip(NamedTuple):
    """One way out and back."""

    question: str
    outcome: str
    """equal, refused, or what went wrong."""


def random_options(chance: random.Random) -> tuple[str, list[str]]:
    """A method, and some of the options that it has."""
    method = chance.choices(("full", "lora", "qlora", "ia3", "oft", "vera", "prompt-tuning"), (3, 6, 6, 1, 1, 1, 1))[0]
    recipe = {**RECIPE, "--sequence-length": ("64", "700", "2048"), "--micro-batch-size": ("1", "3")}
    words = some(chance, recipe, 0.08) + switches(chance, SWITCHES, 0.1)
    if method.endswith("lora"):
        words += some(chance, ADAPTER, 0.2) + switches(chance, ("--use-dora", "--use-rslora"), 0.15)
    if method == "qlora":
        words += some(chance, QUANTIZATION, 0.1) + switches(chance, UPCASTS, 0.1)
    if chance.random() < 0.25:
        words += some(chance, SEVERAL, 0.7) + switches(chance, ("--cpu-offload", "--sync-each-batch"), 0.2)
    return method, words


def random_trip(chance: random.Random, number: int, folder: Path, models: Sequence[str] = MODELS) -> Trip:
    """Models and tools in turn; now and then a card, the path of a config.json, or a launcher's file beside."""
    name, tool = models[number % len(models)], tuple(FILES)[number // len(models) % len(FILES)]
    method, options = random_options(chance)
    card = ["--gpu", chance.choice(("t4", "l4", "h100-sxm"))] if chance.random() < 0.2 else []
    model = model_path(name, folder) if chance.random() < 0.1 else name
    launcher = chance.choice(tuple(LAUNCHERS)) if chance.random() < 0.3 else None
    return trip(["--model", model, "--method", method, *options, *card], tool, folder, launcher)


def trip(asked: list[str], tool: str, folder: Path, launcher: str | None = None) -> Trip:
    """Write the file, read it back by the command that stands in it, and compare with what was asked.

    Where the tool says that it does otherwise, the comparison is with that.
    """
    path = folder / f"it's {FILES[tool]}"
    question = shlex.join(["recipe", *asked, "--for", tool])
    written = run("recipe", *asked, "--for", tool, "-o", str(path))
    if written.exit_code:
        refused = written.exit_code == 2 and written.stderr.count("Error: ") == 1
        return Trip(question, "refused" if refused else written.stderr or repr(written.exception))
    (command,) = _PLAN_IT.findall(path.read_text(encoding="utf-8"))
    read = shlex.split(command)[1:] + (asked[asked.index("--gpu") :] if "--gpu" in asked else [])
    otherwise = _otherwise(written.stderr)
    if launcher:
        beside, more = _beside([*asked, *otherwise], launcher, folder)
        read, otherwise = [*read, *beside], [*otherwise, *more]
    return Trip(question, _difference(_plan(read), _plan(["plan", *asked, *otherwise])))


def _otherwise(said: str) -> list[str]:
    """What a tool does in place of what was asked."""
    return [word for line in _OTHERWISE.findall(said) for word in shlex.split(line)]


def _beside(asked: list[str], launcher: str, folder: Path) -> tuple[list[str], list[str]]:
    """The launcher's own file and what it does otherwise; one that it does not write is not read."""
    place = folder / LAUNCHERS[launcher]
    written = run("recipe", *asked, "--for", launcher, "-o", str(place))
    return ([], []) if written.exit_code else (["--from", str(place)], _otherwise(written.stderr))


def _plan(words: list[str]) -> Any:
    card = [] if "--gpu" in words else ["--no-gpu"]
    result = run(*words, *card, "--format", "json")
    if result.exit_code:
        return result.stderr or repr(result.exception)
    (plan,) = json.loads(result.stdout)["plans"]
    return plan


def _difference(read: Any, typed: Any) -> str:
    texts = [f"{name}: {each}" for name, each in (("read", read), ("typed", typed)) if isinstance(each, str)]
    if texts:
        return "; ".join(texts)
    same = all(read[part] == typed[part] for part in ("memory", "adapter_file_bytes"))
    if same and _verdict(read, read["unpriced"]) == _verdict(typed, read["unpriced"]):
        return "equal"
    names = [name for name in typed["recipe"] if read["recipe"][name] != typed["recipe"][name]]
    return "; ".join(f"{name}: {read['recipe'][name]}, not {typed['recipe'][name]}" for name in names) or "bytes differ"


def _verdict(plan: Any, unpriced: Any) -> Any:
    """Its figures; whether it fits is left open by a file whose tool adds what is not priced, which lifts the band."""
    verdict = plan["verdict"]
    if not verdict or not unpriced:
        return verdict
    lifted = sum(each["most_bytes"] or 0 for each in plan["unpriced"])
    return {**verdict, "fit": None, "ran_out": None, "high_bytes": verdict["high_bytes"] - lifted}
