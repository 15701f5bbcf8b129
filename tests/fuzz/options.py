"""The commands as click knows them, so that a new option is tried without a word here, and good values of each."""

from __future__ import annotations

import random
from functools import lru_cache

import click
from fuzz.atoms import PATHS, text

from peftbench.catalog.gpus import list_gpus
from peftbench.catalog.models import list_models
from peftbench.cli import VERBS, main
from peftbench.estimate.parts.optimizer import OPTIMIZERS
from peftbench.estimate.peft_types.table import METHODS

SMALL = (
    "135m",
    "0.5b",
    "1b",
    "gpt2",
    "opt-125m",
    "pythia-160m",
    "phi-1_5",
    "gemma-3-1b-it",
    "SmolLM3-3B",
    "8b",
    "8x7b",
)
FILES = ("--from", "--adapter-config", "--calibration", "--prices", "--dataset", "--output", "--out", "--snapshot")
GOOD: dict[str, tuple[str, ...]] = {
    "--gpu-memory": ("14.5GiB", "16GB", "80 GiB", "24576MiB", "1TiB"),
    "--optimizer": OPTIMIZERS,
    "--target-modules": ("all-linear", "q_proj,v_proj", "q_proj", "down_proj,up_proj"),
    "--lora-dropout": ("0", "0.05", "0.5"),
    "--adapter-option": tuple(
        f"{name}={value}" for method in METHODS.values() for name, value in method.options.items() if value is not None
    ),
    "--blocksize": ("32", "64", "128", "256", "4096"),
    "--batch-lengths": ("696,610", "1", "2048,1024,512"),
    "--alloc-conf": ("expandable_segments:True", "max_split_size_mb:128", "garbage_collection_threshold:0.8"),
    "--explain": ("time", "weights", "activations", "logits and loss", "allocator slack", "gradients", "adapters"),
    "--tokens": ("50M", "1.5B", "1000", "1"), "--budget": ("40", "$1,000"), "--deadline": ("12h", "90min", "2d"),
    "--setup": ("10min", "0"), "--provider": ("runpod", "aws", "lambda"), "--own": ("rtx4090", "2xrtx3090", "t4"),
    "--price": ("1.20",), "--power-price": ("0.3",), "--purchase-price": ("1800",), "--memory-limit": ("16GiB", "1GB"),
    "--only": ("lora", "full", "qlora"), "--fail-above": ("6%", "50"), "--timeout": ("60", "0.5"),
}  # fmt: skip


@lru_cache(maxsize=1)
def names() -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Names of models, of cards and of methods."""
    models = tuple(name for model in list_models() for name in (model.id, *model.aliases))
    methods = ("full", "lora", "qlora", *(f"{q}{name}" for name in METHODS for q in ("", "q")))
    return models, tuple(gpu.name for gpu in list_gpus()), methods


@lru_cache(maxsize=len(VERBS))
def sections_of(verb: str) -> dict[str, tuple[click.Parameter, ...]]:
    """The options of a verb by the headings of its help; all under one where it has none."""
    command = main.get_command(click.Context(main), verb)
    assert command is not None
    sections: dict[str, tuple[click.Parameter, ...]] = getattr(command, "sections", {"Options": tuple(command.params)})
    return sections


def flag_of(option: click.Parameter) -> str:
    """Its long name, or that of an argument."""
    return max(option.opts, key=len)


def good_value(option: click.Parameter, chance: random.Random) -> str | None:
    """A value that it may have; None where nobody knows one."""
    flag = flag_of(option)
    models, cards, methods = names()
    many = {"--model": models if chance.random() < 0.15 else SMALL, "--gpu": cards, "--method": methods, **GOOD}
    if flag in many:
        return chance.choice(many[flag])
    if isinstance(option.type, click.Choice):
        return str(chance.choice(option.type.choices))
    least, most = getattr(option.type, "least", None), getattr(option.type, "most", None)
    if least is not None:
        return str(chance.choice((least, least + 1, 1, 2, 3, 4, 7, 8, 64, 128, 1000, 2048, 4096, most)))
    return None


def words_for(option: click.Parameter, chance: random.Random, good: bool) -> list[str]:
    """The option as it is typed, with a value where it takes one."""
    if isinstance(option, click.Option) and option.is_flag:
        return [chance.choice((*option.opts, *option.secondary_opts))]
    value = good_value(option, chance) if good else None
    if value is None:
        value = chance.choice(PATHS) if flag_of(option) in FILES and chance.random() < 0.6 else text(chance)
    if isinstance(option, click.Argument):
        return [value]
    flag = chance.choice(option.opts)
    return [f"{flag}={value}"] if chance.random() < 0.05 and flag.startswith("--") else [flag, value]
