"""The checkpoints of the catalogue: one line each in checkpoints.jsonl, and their names in names.txt.

A plan needs one of hundreds, so names.txt says at which byte the line of a name begins, and only that line is read.
tests/benchmarks/catalogue.py writes both files.
"""

import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any, NamedTuple

from peftbench.base.errors import NoFormula
from peftbench.inputs.model.config_json import read_config
from peftbench.inputs.model.family import find_family
from peftbench.inputs.model.spec import ModelSpec

_FOLDER = os.path.dirname(__file__)
CHECKPOINTS = os.path.join(_FOLDER, "checkpoints.jsonl")
_SIZE = re.compile(r"[\d.x]+[bm]")
NAMES = os.path.join(_FOLDER, "names.txt")


class CatalogModel(NamedTuple):
    """One checkpoint.

    A size among its aliases ("8b") stands for one text model of that size. It is the one with the most downloads; but
    one that had the name before keeps it while it has a third as many, so that what was typed goes on to mean the same.
    """

    id: str
    kind: str
    """causal-lm, vision-language, encoder, encoder-decoder or speech; "(moe)" behind it for a mixture."""
    transformers_class: str
    num_parameters: int
    """Parameters of what transformers 5.23 builds from the config: sum(p.numel()) on the meta device."""
    published: int | None
    """Those that the Hub or the paper states."""
    difference: str
    """Why the two differ; empty where they are equal."""
    downloads: int
    """In 30 days, of this repository and those that mean the same. Source: the crawl in llmfit 1.1.17, 2026-10."""
    evidence: str
    """Where the config is from."""
    doubts: tuple[str, ...]
    aliases: tuple[str, ...]
    """Other names of the same shapes: short ones, and other repositories."""
    quantized: tuple[str, ...]
    """Repositories that hold the same model quantized."""
    config: Mapping[str, Any]

    @property
    def source(self) -> str:
        """Where the config.json is published."""
        return f"https://huggingface.co/{self.id}/blob/main/config.json"

    def holds_quantized(self, name: str) -> bool:
        """Whether that is a repository, in any case and perhaps without its account, of this model quantized."""
        return any(f"/{copy.lower()}".endswith(f"/{name.lower()}") for copy in self.quantized)

    def is_called(self, word: str) -> bool:
        """Whether a word is part of its names, type or kind; a size ("8b") only where it stands by itself."""
        text = " ".join((self.id, *self.aliases, str(self.config["model_type"]), self.kind)).lower()
        word = word.lower()
        pattern = rf"(?<![a-z\d.]){re.escape(word)}(?![a-z\d])" if _SIZE.fullmatch(word) else re.escape(word)
        return re.search(pattern, text) is not None

    @property
    def has_formula(self) -> bool:
        """Whether its architecture is known by formula; some types have one for a part of their checkpoints."""
        with suppress(NoFormula):
            return find_family(str(self.config["model_type"])) is not None and bool(self.spec)
        return False

    @property
    def spec(self) -> ModelSpec:
        """The model under its Hub id; raises NoFormula where the architecture has none."""
        return read_config(self.config, self.id, self.source)


@lru_cache(maxsize=1)
def list_models() -> tuple[CatalogModel, ...]:
    """Every checkpoint of the catalogue, in the order of its file."""
    with open(CHECKPOINTS, "rb") as file:
        return tuple(map(_entry, file))


def find_entry(name: str) -> CatalogModel | None:
    """The checkpoint of that name in any case, or None.

    A name without an account is also found behind the slash of one that has it.
    """
    if name.split() != [name]:
        return None
    names = _names()
    for before in ("\n", "/"):
        start = names.find(f"{before}{name.lower()}\t")
        if start >= 0:
            return _read(int(names[start + len(name) + 2 : names.index("\n", start + 1)]))
    return None


def all_names() -> list[str]:
    """Every name in lower case: those with an account, then what stands behind their slash."""
    whole = _names().split()[::2]
    return [*whole, *(name.rpartition("/")[2] for name in whole)]


@lru_cache(maxsize=1)
def _names() -> str:
    with open(NAMES, encoding="utf-8") as file:
        return "\n" + file.read()


def _read(place: int) -> CatalogModel:
    with open(CHECKPOINTS, "rb") as file:
        file.seek(place)
        return _entry(file.readline())


def _entry(line: bytes) -> CatalogModel:
    entry = json.loads(line)
    return CatalogModel(**{**entry, **{key: tuple(entry[key]) for key in ("doubts", "aliases", "quantized")}})
