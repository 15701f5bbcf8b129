"""Suites: YAML files that say what to measure, read strictly; every option keeps the name that `plan` gives it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from peftbench.base.codec import Count, Within, check_fields, from_json
from peftbench.base.documents import read_yaml
from peftbench.base.errors import CatalogError, SpecError, did_you_mean, located
from peftbench.base.plain import Lined
from peftbench.base.visible import written
from peftbench.inputs.case import TRACKED_STEPS, DeviceType

COMPARING = ("quality", "latency")
"""Kinds whose cases are variants of one model, compared in one process."""
SUFFIX = ".yaml"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
"""Names of suites, which name files, and of cases."""
_OF_STEPS = ("steps", "warmup_steps", "learning_rate", "largest")
"""Keys of suites that train or generate."""

Plain = str | int | float | bool
Options = Mapping[str, Plain | tuple[Plain, ...]]
"""Options by name; what they mean is checked where recipes are made."""


@dataclass(frozen=True, kw_only=True)
class Suite:
    """One file. Options are those of `plan`, with underscores; what they mean is checked where recipes are made."""

    path: str
    """As it was named."""
    name: str
    """The file's, without its suffix."""
    about: str
    kind: Literal["training", "inference", "quality", "latency"] = "training"
    model: str | Mapping[str, Any]
    """A name that `plan --model` takes, or a config.json written out."""
    device: DeviceType = "cuda"
    gpu: str | None = None
    """The card it is meant for, which predictions are made for where there is none."""
    steps: Annotated[int, Within(1, 1_000_000)] = 5
    warmup_steps: Annotated[int, Within(TRACKED_STEPS, 1_000_000)] = TRACKED_STEPS
    learning_rate: Annotated[float, Within(0, 100)] = 1e-3
    seed: Count = 0
    base: Options = field(default_factory=dict)
    """Options of every case."""
    cases: Mapping[str, Options]
    """Options of each case, over those of the base."""
    sweep: Mapping[str, tuple[Plain, ...]] = field(default_factory=dict)
    """Values of options; every case is run with each combination."""
    compare: Options = field(default_factory=dict)
    """How the variants of a comparison are compared: fields of QualityCase or LatencyCase."""
    largest: Literal["micro_batch_size", "batch_size"] | None = None
    """An option whose largest value that does not run out of memory is searched for each case."""

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.cases:
            raise SpecError("the suite has no cases.", "Name one, as in cases: {lora: {method: lora}}.")
        for case in self.cases:
            if not _NAME.fullmatch(case):
                raise SpecError(f"a case cannot be named {written(case)}.", "Use a-z, 0-9, dots and dashes.")
        for name, values in self.sweep.items():
            if not values:
                raise SpecError(f"sweep.{name} must be a list of values, not an empty one.")
        _check_model(self.model)


def _check_model(model: str | Mapping[str, Any]) -> None:
    if isinstance(model, str) and not model.strip():
        raise SpecError("model must be a name, not empty.", "As in model: llama-3.2-1b.")
    if not isinstance(model, str) and not isinstance(model.get("model_type"), str):
        raise SpecError("a model that is written out needs a model_type.", "Or name one, as in model: llama-3.2-1b.")


def find_suite(text: str) -> Path:
    """The file of a path, or of the name of a shipped suite. Raises CatalogError."""
    given = Path(text)
    if given.suffix in (SUFFIX, ".yml") or os.sep in text:
        if given.exists():
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
    value = read_yaml(place, "Name a suite: a .yaml file.")
    with located(str(place), hint="Correct it there."):
        if not _NAME.fullmatch(place.stem):
            raise SpecError(f"a suite cannot be named {written(place.stem)}.", "Use a-z, 0-9, dots and dashes.")
        return _suite(place, value)


def _suite(place: Path, value: object) -> Suite:
    if not isinstance(value, Lined) or not value:
        raise SpecError("a suite must be a mapping of names to values.", "It needs about, model and cases.")
    given = {key: _EMPTY.get(key) if each is None else each for key, each in value.items()}
    cases = given.get("cases")
    if isinstance(cases, Lined):
        plain = {case: {} if options is None else options for case, options in cases.items()}
        given["cases"] = Lined(plain, cases.lines)
    suite: Suite = from_json(Suite, Lined({**given, "path": str(place), "name": place.stem}, value.lines), "")
    _check_belonging(suite, value)
    return suite


_EMPTY: Mapping[str, Any] = {"base": {}, "sweep": {}, "compare": {}}
"""What stands for a key without a value."""


def _check_belonging(suite: Suite, given: Mapping[str, Any]) -> None:
    """Raise SpecError for a key that the kind has no use for: it would be ignored."""
    if suite.kind not in COMPARING:
        if given.get("compare") is not None:
            raise SpecError("only a suite of kind quality or latency can have a key compare.", "Leave it out.")
        return
    for name in _OF_STEPS:
        if name in given:
            raise SpecError(f"a suite of kind {suite.kind} has no {name}.", "Put how it compares below compare.")
