"""Suites: YAML files that say what to measure, read strictly; every option keeps the name that `plan` gives it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peftbench.base.documents import parse_yaml
from peftbench.base.errors import CatalogError, SpecError, did_you_mean
from peftbench.inputs.case import DEVICES, TRACKED_STEPS

KINDS = ("training", "inference", "quality", "latency")
COMPARING = ("quality", "latency")
"""Kinds whose cases are variants of one model, compared in one process."""
SUFFIX = ".yaml"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
"""Names of suites, which name files, and of cases."""
_PLAIN = (str, int, float, bool)
_OF_STEPS = ("steps", "warmup_steps", "learning_rate", "largest")
"""Keys of suites that train or generate."""


@dataclass(frozen=True, kw_only=True)
class Suite:
    """One file. Options are those of `plan`, with underscores; what they mean is checked where recipes are made."""

    name: str
    """The file's, without its suffix."""
    about: str
    kind: str = "training"
    model: str | Mapping[str, Any]
    """A name that `plan --model` takes, or a config.json written out."""
    device: str = "cuda"
    gpu: str | None = None
    """The card it is meant for, which predictions are made for where there is none."""
    steps: int = 5
    warmup_steps: int = TRACKED_STEPS
    learning_rate: float = 1e-3
    seed: int = 0
    base: Mapping[str, Any] = field(default_factory=dict)
    """Options of every case."""
    cases: Mapping[str, Mapping[str, Any]]
    """Options of each case, over those of the base."""
    sweep: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Values of options; every case is run with each combination."""
    compare: Mapping[str, Any] = field(default_factory=dict)
    """How the variants of a comparison are compared: fields of QualityCase or LatencyCase."""
    largest: str | None = None
    """An option whose largest value that does not run out of memory is searched for each case."""


LARGEST = ("micro_batch_size", "batch_size")
"""Options that `largest` can search."""


def find_suite(text: str) -> Path:
    """The file of a path, or of the name of a shipped suite. Raises CatalogError."""
    given = Path(text)
    if given.suffix in (SUFFIX, ".yml") or os.sep in text:
        if given.is_file():
            return given
        raise CatalogError(f"no such suite: {text}.", f"Shipped suites: {', '.join(shipped_suites())}.")
    known = shipped_suites()
    if text in known:
        return known[text]
    hint = f"{did_you_mean(text, known)} Shipped suites: {', '.join(known)}; the path of a .yaml file works too."
    raise CatalogError(f"no suite named {text[:80]!r}.", hint.strip())


def shipped_suites() -> dict[str, Path]:
    """The suites that come with the package, by name."""
    package = Path(__file__).parents[1]
    for folder in (package / "suites", package.parent / "suites"):  # installed, or a checkout
        if folder.is_dir():
            return {path.stem: path for path in sorted(folder.glob(f"*{SUFFIX}"))}
    return {}


def read_suite(path: str | os.PathLike[str]) -> Suite:
    """Read one file. Raises CatalogError or SpecError, with file and place, for anything that is not a suite."""
    place = Path(path)
    try:
        value = _parsed(place)
        if not _NAME.fullmatch(place.stem):
            raise SpecError(f"a suite cannot be named {place.stem!r}.", "Use a-z, 0-9, dots and dashes.")
        return _suite(place.stem, value)
    except SpecError as error:
        raise SpecError(f"{place}: {error.what}", error.hint) from None


def _suite(name: str, value: object) -> Suite:
    given = _mapping(value, "a suite")
    _known(given, Suite.__dataclass_fields__.keys() - {"name"}, "the suite")
    for needed in ("about", "model", "cases"):
        if needed not in given:
            raise SpecError(f"the suite has no {needed}.", "It needs about, model and cases.")
    _one_of("kind", given.get("kind", "training"), KINDS)
    _one_of("device", given.get("device", "cuda"), DEVICES)
    if not isinstance(given.get("gpu"), (str, type(None))):
        raise SpecError(f"gpu must be the name of a card, not {given['gpu']!r}.", "As in gpu: t4.")
    if given.get("largest") is not None:
        _one_of("largest", given["largest"], LARGEST)
    _belonging(given)
    named = _mapping(given["cases"], "cases").items()
    cases = {_name(case): _options(options, f"case {case}") for case, options in named}
    if not cases:
        raise SpecError("the suite has no cases.", "Name one, as in cases: {lora: {method: lora}}.")
    return Suite(**{
        **given, "name": name, "about": str(given["about"]), "model": _model(given["model"]), "cases": cases,
        "base": _options(given.get("base"), "base"), "sweep": _sweep(given.get("sweep")),
        "compare": _options(given.get("compare"), "compare"), **_numbers(given),
    })  # fmt: skip


def _belonging(given: Mapping[str, Any]) -> None:
    """Raise SpecError for a key that the kind has no use for: it would be ignored."""
    if given.get("kind", "training") not in COMPARING:
        if given.get("compare") is not None:
            raise SpecError("only a suite of kind quality or latency can have a key compare.", "Leave it out.")
        return
    for name in _OF_STEPS:
        if name in given:
            raise SpecError(f"a suite of kind {given['kind']} has no {name}.", "Put how it compares below compare.")


def _numbers(given: Mapping[str, Any]) -> dict[str, int | float]:
    found: dict[str, int | float] = {}
    for name in ("steps", "warmup_steps", "seed", "learning_rate"):
        if name in given:
            kinds = (int, float) if name == "learning_rate" else (int,)
            if type(given[name]) not in kinds:
                raise SpecError(f"{name} must be a number, not {given[name]!r}.")
            found[name] = given[name]
    return found


def _model(value: object) -> str | Mapping[str, Any]:
    if isinstance(value, str) and value.strip():
        return value
    config = _mapping(value, "model")
    if not isinstance(config.get("model_type"), str):
        raise SpecError("a model that is written out needs a model_type.", "Or name one, as in model: llama-3.2-1b.")
    return config


def _options(value: object, where: str) -> dict[str, Any]:
    options = _mapping({} if value is None else value, where)
    for name, option in options.items():
        _plain(option, f"{name} of {where}")
    return dict(options)


def _plain(option: object, where: str) -> None:
    items = option if isinstance(option, list) else [option]
    if not items or not all(isinstance(item, _PLAIN) for item in items):
        raise SpecError(f"{where} must be a word, a number, true, false or a list of such, not {option!r}.")


def _sweep(value: object) -> dict[str, tuple[Any, ...]]:
    sweep = _mapping({} if value is None else value, "sweep")
    for name, values in sweep.items():
        if not isinstance(values, list) or not values:
            raise SpecError(f"sweep: {name} needs a list of values, not {values!r}.")
        _plain(values, f"sweep: {name}")
    return {name: tuple(values) for name, values in sweep.items()}


def _name(case: object) -> str:
    if not isinstance(case, str) or not _NAME.fullmatch(case):
        raise SpecError(f"a case cannot be named {case!r}.", "Use a-z, 0-9, dots and dashes.")
    return case


def _mapping(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise SpecError(f"{where} must be a mapping of names to values, not {value!r}.")
    return value


def _known(given: Iterable[str], known: Iterable[str], where: str) -> None:
    known = sorted(known)
    for name in given:
        if name not in known:
            hint = did_you_mean(name, known) or f"It may have {', '.join(known)}."
            raise SpecError(f"{where} has no key {name!r}.", hint)


def _one_of(name: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise SpecError(f"{name} cannot be {value!r}.", f"Choose one of {', '.join(known)}.")


def _parsed(place: Path) -> object:
    try:
        text = place.read_bytes()
    except OSError as error:
        raise CatalogError(f"cannot read {place}: {error.strerror}.", "Name a .yaml file.") from None
    return parse_yaml(text, str(place), "Correct it there.")
