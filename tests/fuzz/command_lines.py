"""Command lines of every verb: about half of them good, the others good but for one thing or a few."""

from __future__ import annotations

import random
from collections.abc import Callable

import click
from fuzz.atoms import PATHS, SETTINGS, text
from fuzz.case import Case
from fuzz.options import SMALL, flag_of, good_value, names, sections_of, words_for

from peftbench.cli import VERBS

UNTYPED = ("--dry-run", "--calibration", "--adapter-config", "--from", "--output", "--max", "--explain", "--check",
           "--live-prices", "--use-cache", "--format", "--adapter-option", "--num-virtual-tokens", "--target-modules",
           "--extrapolate", "--price", "--purchase-price")  # fmt: skip
"""Options that a good line is not given by chance: they ask another question."""


def lines(chance: random.Random, kind: str, number: int) -> Case:
    """One command line."""
    verb = chance.choices(list(_VERBS), [weight for weight, _ in _VERBS.values()])[0]
    words = _VERBS[verb][1](chance)
    if chance.random() < 0.5:
        for _ in range(chance.choice((1, 1, 2, 3))):
            words = chance.choice(_MISTAKES)(words, chance)
    name = chance.choice(list(SETTINGS))
    setting = ((name, chance.choice(SETTINGS[name])),) if chance.random() < 0.06 else ()
    return Case(kind, number, tuple(word.replace("\0", "") for word in words), environment=setting)


def _some(verb: str, headings: tuple[str, ...], chance: random.Random, share: float) -> list[str]:
    """Options of these sections, each by chance, at good values."""
    options = [option for heading, each in sections_of(verb).items() if heading.startswith(headings) for option in each]
    words = []
    for option in options:
        if chance.random() < share and flag_of(option) not in UNTYPED and _has_good(option, chance):
            words += words_for(option, chance, good=True)
    return words


def _has_good(option: click.Parameter, chance: random.Random) -> bool:
    return (isinstance(option, click.Option) and option.is_flag) or good_value(option, chance) is not None


def _plan(chance: random.Random, verb: str = "plan") -> list[str]:
    models, cards, methods = names()
    usual = ("full", "lora", "qlora")
    method = chance.choice(usual if verb == "recipe" or chance.random() < 0.7 else methods)
    words = [verb, "--model", chance.choice(SMALL) if chance.random() < 0.8 else chance.choice(models)]
    words += ["--method", method] if chance.random() < 0.85 else []
    if verb != "plan" or chance.random() < 0.93:
        size = f"{chance.randint(2, 200)}GiB"
        words += ["--gpu", chance.choice(cards)] if chance.random() < 0.75 else ["--gpu-memory", size]
    if verb == "plan" and chance.random() < 0.12:
        return [*words, "--task", "inference", *_some(verb, ("Inference",), chance, 0.4), *_answer(chance)]
    words += _some(verb, ("Training recipe",), chance, 0.08 if verb != "recipe" else 0.03)
    words += _some(verb, ("Adapter",), chance, 0.08) if method in usual[1:] else []
    words += _some(verb, ("Quantization",), chance, 0.08) if method == "qlora" else []
    if verb != "timeline" and chance.random() < 0.1:
        words += ["--gpus", chance.choice(("2", "4", "8", "16", "64", "auto"))]
    elif verb == "plan" and chance.random() < 0.08:
        words += ["--dry-run", *_some(verb, ("Dry run",), chance, 0.15)]
    elif verb == "plan" and chance.random() < 0.08:
        words += chance.choice(
            (["--max", "sequence-length"], ["--max", "micro-batch-size"], ["--explain", "time"], ["--check"])
        )
    return words + (_answer(chance) if verb == "plan" else [])


def _answer(chance: random.Random) -> list[str]:
    other = ("csv", "markdown", "html", "jsonl", "terminal")
    return (
        ["--format", "json"] if chance.random() < 0.6 else ["--format", chance.choice(other)][: chance.choice((0, 2))]
    )


def _recipe(chance: random.Random) -> list[str]:
    words = _plan(chance, "recipe")
    if "--gpu-memory" in words:
        del words[words.index("--gpu-memory") : words.index("--gpu-memory") + 2]
    if chance.random() < 0.25:
        many = ("--gpus", chance.choice(("2", "8")), "--parallel", chance.choice(("fsdp", "zero2", "zero3", "ddp")))
        return [*words, *many, "--for", chance.choice(("accelerate", "deepspeed", "axolotl"))]
    return [*words, "--for", chance.choice(("transformers", "trl", "axolotl", "llamafactory"))]


def _timeline(chance: random.Random) -> list[str]:
    return [*_plan(chance, "timeline"), "-o", chance.choice(("-", "page.html"))]


def _choose(chance: random.Random) -> list[str]:
    words = ["choose", "--model", chance.choice(SMALL[:7]), "--method", chance.choice(("lora", "qlora", "full"))]
    words += ["--tokens", chance.choice(("50M", "1M", "2B"))]
    if chance.random() < 0.8:
        words += [
            "--gpu",
            chance.choice(("l4", "t4", "a100-80gb", "rtx4090")),
            "--max-gpus",
            chance.choice(("1", "2", "8")),
        ]
    words += _some("choose", ("On what", "For how much"), chance, 0.06)
    return [*words, "--format", chance.choice(("json", "csv", "terminal", "markdown", "html"))]


def _run(chance: random.Random) -> list[str]:
    suite = chance.choice(("smoke", "t4", "methods-1b", "quality-smoke", "adapters-latency-smoke", "optimizers"))
    start = ["--dry-run"] if chance.random() < 0.85 else ["--device", "cpu", "--out", "out.jsonl"]
    return ["run", suite, *start, *_some("run", ("Options",), chance, 0.08)]


def _list(chance: random.Random) -> list[str]:
    words = [chance.choice(("models", "gpus", "claims", "doctor"))]
    return words + _some(words[0], ("Options",), chance, 0.5)


def _files(chance: random.Random) -> list[str]:
    verb = chance.choice(("report", "validate", "calibrate"))
    return [verb, chance.choice((*PATHS, text(chance))), *_some(verb, ("Options",), chance, 0.2)]


def _any(chance: random.Random) -> list[str]:
    """A verb with whatever options it has."""
    verb = chance.choice(list(VERBS))
    options = [option for each in sections_of(verb).values() for option in each]
    words = [verb] if chance.random() < 0.9 else [text(chance)]
    for option in chance.choices(options, k=chance.randint(0, 4)) if options else ():
        words += words_for(option, chance, good=chance.random() < 0.6)
    return words


_VERBS: dict[str, tuple[int, Callable[[random.Random], list[str]]]] = {
    "plan": (66, _plan), "recipe": (10, _recipe), "choose": (3, _choose), "timeline": (2, _timeline), "run": (2, _run),
    "lists": (1, _list), "files": (3, _files), "any": (13, _any),
}  # fmt: skip
"""How often each is asked, and how it is."""


# ── what goes wrong ─────────────────────────────────────────────────────────────────────────────────────────────────


def _one_more(words: list[str], chance: random.Random) -> list[str]:
    """Another option of the verb, good or bad: pairs that nobody thought of."""
    options = [option for each in sections_of(words[0]).values() for option in each] if words[0] in VERBS else []
    if not options:
        return [*words, text(chance)]
    return words + words_for(chance.choice(options), chance, good=chance.random() < 0.5)


def _other_value(words: list[str], chance: random.Random) -> list[str]:
    place = chance.randrange(1, len(words)) if len(words) > 1 else 0
    return [*words[:place], text(chance), *words[place + 1 :]]


def _dropped(words: list[str], chance: random.Random) -> list[str]:
    place = chance.randrange(len(words))
    return [*words[:place], *words[place + 1 :]] or ["plan"]


def _twice(words: list[str], chance: random.Random) -> list[str]:
    place = chance.randrange(len(words))
    return words + words[place : place + 2]


def _misspelt(words: list[str], chance: random.Random) -> list[str]:
    place = chance.randrange(len(words))
    word = words[place]
    cut = chance.randrange(len(word) + 1)
    other = chance.choice((word[:cut], word[:cut] + "x" + word[cut:], word.upper(), word.replace("-", "_"), word + " "))
    return [*words[:place], other, *words[place + 1 :]]


def _swapped(words: list[str], chance: random.Random) -> list[str]:
    one, other = chance.randrange(len(words)), chance.randrange(len(words))
    changed = list(words)
    changed[one], changed[other] = words[other], words[one]
    return changed


_MISTAKES = (
    _one_more,
    _one_more,
    _one_more,
    _other_value,
    _other_value,
    _other_value,
    _dropped,
    _twice,
    _misspelt,
    _swapped,
)
