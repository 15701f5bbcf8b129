"""Variants of one model that are compared in one process: for their quality on the same text, or for their speed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from peftbench.base.codec import Count, Within, check_fields, from_json
from peftbench.base.errors import SpecError
from peftbench.inputs.case import DeviceType, config_text, fingerprint, object_with
from peftbench.inputs.recipe import AdapterSpec, DType, QuantizationSpec

ROUTES = {
    "base": "no adapter",
    "dynamic": "the adapter beside the base weights",
    "merged": "PEFT's merge into the base as it is stored: quantized weights are quantized again",
    "dequantized": "the quantized base is written out, then merged, and stays so",
    "requantized": "merged into the base before that is quantized",
    "round-trips": "merged and unmerged again, then dynamic",
}
"""How an adapter meets its base."""

LATENCY_ROUTES = ("base", "dynamic", "merged")
"""Routes whose speed is measured: the others end in one of these, or are as fast as one."""

REFERENCE = "reference"
"""The name of the model in its own precision, which every quality case has."""
WITH_ADAPTER = f"{REFERENCE}+adapter"
"""The reference with the dynamic adapter: the standard of variants that have one, unless they name another."""

_MANY = 10_000_000
"""More tokens, steps or rounds than that are a typing error."""
SHIPPED_MODELS = ("small-llama", "smollm2-135m-instruct")
"""Models whose quality can be measured without a network: trained on the spot, and out of a package."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One form of the model."""

    name: str
    dtype: DType = DType.FLOAT32
    """Dtype of the weights that are not quantized, and of the arithmetic."""
    quantization: QuantizationSpec | None = None
    route: str = "base"
    adapter: AdapterSpec | None = None
    """None on the route "base"."""
    adapters: Annotated[int, Within(1, 10_000)] = 1
    """How many are loaded; the first is active."""
    round_trips: Annotated[int, Within(0, 1_000_000)] = 0
    """How often it was merged and unmerged."""
    against: str = REFERENCE
    """The variant whose predictions are the standard (quality only)."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.route not in ROUTES:
            raise SpecError(f"{self.name}: adapter cannot be {self.route!r}.", f"Choose one of {', '.join(ROUTES)}.")
        if (self.adapter is None) != (self.route == "base"):
            raise SpecError(f"{self.name}: the route {self.route} does not go with this adapter.")
        if self.route in ("dequantized", "requantized") and self.quantization is None:
            raise SpecError(f"{self.name}: only quantized weights can be {self.route}.", "Use adapter: merged.")
        if self.adapters > 1 and self.route != "dynamic":
            what = f"{self.name}: cannot have {self.adapters} adapters."
            raise SpecError(what, "More than one need adapter: dynamic.")
        if (self.round_trips > 0) != (self.route == "round-trips"):
            raise SpecError(f"{self.name}: round_trips goes with adapter: round-trips.", "Give both, 1 or more.")

    @property
    def base(self) -> tuple[DType, QuantizationSpec | None]:
        """Equal for variants that are made of the same stored weights."""
        return self.dtype, self.quantization

    @property
    def standard(self) -> str:
        """The result that it is compared with (quality only)."""
        return WITH_ADAPTER if self.adapter and self.against == REFERENCE else self.against


@dataclass(frozen=True, kw_only=True)
class QualityCase:
    """The same blocks of text through every variant, each compared with its standard block by block."""

    id: str
    model: str
    """ "small-llama", which is trained on the spot, "smollm2-135m-instruct", a folder, or a name on the Hub."""
    text: str = "sample"
    """ "sample", a play that comes with peftbench, "pydoc", which Python ships, "wikitext", or a file."""
    blocks: Annotated[int, Within(2, _MANY)] = 24
    block_tokens: Annotated[int, Within(8, _MANY)] = 256
    variants: tuple[Variant, ...] = ()
    adapter_steps: Annotated[int, Within(0, _MANY)] = 30
    """Steps that the adapter is trained for before it is merged anywhere; with 0 no variant may have one."""
    by_layer: str | None = None
    """A variant whose quantization is put on one decoder layer at a time, to see which matter."""
    tasks: tuple[str, ...] = ()
    """Also run these of lm-evaluation-harness: names, or YAML files, whose data may be local."""
    task_limit: Annotated[int, Within(1, _MANY)] | None = None
    """Documents of each task; None: all."""
    seed: Count = 0
    device: DeviceType = "cpu"

    def __post_init__(self) -> None:
        if isinstance(self.tasks, str):
            object.__setattr__(self, "tasks", (self.tasks,))
        check_fields(self)
        _check_names(self.variants)
        known = {REFERENCE, *(variant.name for variant in self.variants)}
        for variant in self.variants:
            if variant.name == REFERENCE or variant.against not in known or variant.against == variant.name:
                raise SpecError(f"{variant.name} cannot be compared with {variant.against!r}.", "Name another case.")
        if self.by_layer is not None and self.by_layer not in known - {REFERENCE}:
            raise SpecError(f"by_layer names no case: {self.by_layer!r}.", "Name one that is quantized.")

    @property
    def task(self) -> str:
        """Its kind."""
        return "quality"

    @property
    def key(self) -> str:
        """Equal for cases that would run the same: 16 hexadecimal digits."""
        return fingerprint({name: value for name, value in comparison_to_json(self).items() if name != "id"})


@dataclass(frozen=True, kw_only=True)
class LatencyCase:
    """Rounds in which every variant runs once, in shuffled order, on random weights and fixed lengths."""

    id: str
    model: str
    """What the suite calls the model, for people; only `config` is run."""
    config: str
    """The config.json of the model, as text with sorted keys."""
    prompt_tokens: Annotated[int, Within(1, _MANY)] = 64
    new_tokens: Annotated[int, Within(1, _MANY)] = 8
    batch_size: Annotated[int, Within(1, _MANY)] = 1
    rounds: Annotated[int, Within(5, _MANY)] = 20
    """At least so many."""
    most_rounds: Annotated[int, Within(5, _MANY)] = 60
    """No more than so many, be the interval as wide as it is."""
    interval: Annotated[float, Within(1e-6, 0.999)] = 0.08
    """Half the width of a ratio's 95 % interval at which rounds stop, as a share of the ratio."""
    variants: tuple[Variant, ...] = ()
    switching: bool = False
    """Also time set_adapter, hotswap, loading, merging and mixed batches."""
    seed: Count = 0
    device: DeviceType = "cuda"

    def __post_init__(self) -> None:
        check_fields(self)
        _check_names(self.variants)
        for variant in self.variants:
            if variant.route not in LATENCY_ROUTES:
                what = f"{variant.name}: the speed of an adapter that is {variant.route} is not measured."
                raise SpecError(what, f"Choose one of {', '.join(LATENCY_ROUTES)}.")
        if self.most_rounds < self.rounds:
            raise SpecError(f"most_rounds cannot be less than rounds, {self.rounds}.")

    @property
    def task(self) -> str:
        """Its kind."""
        return "latency"

    @property
    def key(self) -> str:
        """Equal for cases that would run the same: 16 hexadecimal digits."""
        return fingerprint({name: value for name, value in comparison_to_json(self).items() if name != "id"})


ComparisonCase = QualityCase | LatencyCase


def comparison_to_json(case: ComparisonCase) -> dict[str, Any]:
    """Plain JSON values."""
    value = {**asdict(case), "task": case.task}
    if isinstance(case, LatencyCase):
        value["config"] = json.loads(case.config)
    return value


def comparison_from_json(value: object) -> ComparisonCase:
    """The inverse of comparison_to_json; raises SpecError for anything else."""
    given = object_with(("task",), value, "case")
    kind = from_json(Literal["quality", "latency"], given.pop("task"), "case.task")
    if "config" in given:
        given["config"] = config_text(given["config"])
    case: ComparisonCase = from_json(QualityCase if kind == "quality" else LatencyCase, given, "case")
    return case


def _check_names(variants: tuple[Variant, ...]) -> None:
    names = [variant.name for variant in variants]
    if len(set(names)) < len(names):
        raise SpecError(f"duplicate case name: {', '.join(names)}.")
