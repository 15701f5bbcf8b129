"""The settings of another tool as rows, which reading and writing both use: one for each option of ours.

A row is the setting's name, our option, the kind of value, and the tool's default. What several settings decide
together is a rule: two short functions, one for each way. A tool's rows stand in the order in which they are written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from peftbench.inputs.recipe import AdapterSpec, DType, QuantizationSpec, TrainingSpec
from peftbench.recipes.kinds import COUNT, Kind
from peftbench.recipes.settings import Reading, Settings, Unread
from peftbench.recipes.unread import check_kind

DATASET = "train.jsonl"

Found = dict[str, Any]
"""Options of a TrainingSpec by name, with those of adapter and quantization in mappings of their own."""


class Row(NamedTuple):
    """One setting of a tool, and the option of ours that it is."""

    setting: str
    option: str
    kind: Kind
    default: Any
    """The tool's own, in our words where it stands for an option that is None."""
    older: str = ""
    """The setting's older name."""

    def take(self, settings: Settings, found: Found) -> Found:
        """The option, from the tool's settings; nothing where they and the tool leave it open."""
        default = self.kind.take(settings, self.older, self.default) if self.older else self.default
        value = self.kind.take(settings, self.setting, default)
        return {} if value is None else {self.option: value}

    def give(self, spec: Any) -> Mapping[str, object]:
        """The setting, from the spec that has the option; nothing where that and the tool leave it open."""
        value = getattr(spec, self.option)
        value = self.default if value is None else value
        return {} if value is None else {self.setting: self.kind.give(value)}


class Rule(NamedTuple):
    """Options that settings decide together, and the settings that say them."""

    take: Callable[[Settings, Found], Found]
    """From the settings and what the rows above have found."""
    give: Callable[[Any], Mapping[str, object]] = lambda spec: {}


Rows = Iterable[Row | Rule]


def take(rows: Rows, settings: Settings) -> Found:
    """What the settings say; raises SpecError for values that cannot be, NoFormula for what is not modelled."""
    found: Found = {}
    for row in rows:
        found |= row.take(settings, found)
    return found


def give(rows: Rows, spec: Any) -> dict[str, object]:
    """The settings that say what the spec says."""
    return {name: value for row in rows for name, value in row.give(spec).items()}


def fixed(**settings: object) -> Rule:
    """Settings that are written alike for every recipe, and decide nothing that is read."""
    return Rule(lambda _settings, _found: {}, lambda _spec: settings)


def recipe_of(found: Found) -> TrainingSpec:
    """The recipe. Raises SpecError for one that cannot be.

    "packed" sequences fill a batch without padding; "filled" ones are padded to the full length even when alone. A
    compute dtype that is left open, and an adapter's dtype that is None, is that of the weights.
    """
    options = dict(found)
    packed, filled = options.pop("packed", False), options.pop("filled", False)
    options.setdefault("padded", not packed and (filled or options["micro_batch_size"] > 1))
    adapter, quantization, dtype = options.get("adapter"), options.get("quantization"), options["dtype"]
    if adapter is not None:
        options["adapter"] = AdapterSpec(**{**adapter, "dtype": adapter.get("dtype", DType.FLOAT32) or dtype})
    if quantization is not None:
        options["quantization"] = QuantizationSpec(**{"compute_dtype": dtype, **quantization})
    return TrainingSpec(**options)


def alpha(rank: int, default: Callable[[int], int | None]) -> Rule:
    """LoRA's alpha, written as twice the rank where a recipe leaves it open. `rank` is the tool's own default, and
    `default` its alpha for a rank."""

    def read_alpha(settings: Settings, found: Found) -> Found:
        return Row("lora_alpha", "alpha", COUNT, default(found.get("r", rank))).take(settings, found)

    return Rule(read_alpha, lambda adapter: {"lora_alpha": adapter.alpha or 2 * (adapter.r or rank)})


def packed(recipe: TrainingSpec) -> bool:
    """Whether sequences are joined, so that a batch of several has no padding."""
    return not recipe.padded and recipe.micro_batch_size > 1


def half(recipe: TrainingSpec) -> str:
    """The type of autocast: "bf16", "fp16", or "no" as accelerate's mixed_precision has it."""
    if not recipe.autocast:
        return "no"
    return "fp16" if recipe.dtype is DType.FLOAT16 else "bf16"


def under_zero(recipe: TrainingSpec) -> TrainingSpec:
    """DeepSpeed does not autocast: it casts the weights to the 16-bit type, whatever they were loaded in.

    Source: DeepSpeedEngine._configure_distributed_model. Which of the two types it is moves no byte.
    """
    whole = recipe.dtype is DType.FLOAT32 and recipe.autocast
    return replace(recipe, dtype=DType.BFLOAT16) if whole and recipe.parallelism.strategy.startswith("zero") else recipe


def on_host(recipe: TrainingSpec) -> TrainingSpec:
    """Each process reads weights on the host, unless they are quantized: then FSDP sends them to the GPU in parts.

    Source: check_and_set_device_map in transformers/integrations/accelerate.py, which leaves device_map None.
    """
    parallelism = recipe.parallelism
    if recipe.quantization is not None or not parallelism.strategy.startswith("fsdp") or parallelism.loading is None:
        return recipe
    return replace(recipe, parallelism=replace(parallelism, loading=None))


class Tool(NamedTuple):
    """A tool whose file says how to train, both ways."""

    name: str
    model: str | None
    """The setting that names the model."""
    rows: tuple[Row | Rule, ...]
    settle: Callable[[TrainingSpec], TrainingSpec] = under_zero
    """What the tool makes of a recipe that it was asked for."""
    notes: Callable[[Settings, TrainingSpec], Iterable[str | Unread]] = lambda settings, recipe: ()
    """What a reader should know of a file, beside what its rows have to say."""


def read(tool: Tool, settings: Settings) -> Reading:
    """The recipe that the tool would run. Raises SpecError for values that cannot be, NoFormula for other trainings."""
    check_kind(settings)
    recipe = on_host(tool.settle(recipe_of(take(tool.rows, settings))))
    settings.said += tool.notes(settings, recipe)
    model = settings.word_or_none(tool.model) if tool.model else None
    return Reading(tool.name, model, recipe, tuple(map(str, settings.said)))


def write(tool: Tool, model: str, recipe: TrainingSpec) -> dict[str, object]:
    """The settings of the file that comes nearest to the recipe."""
    named = {tool.model: model} if tool.model else {}
    return {**named, **give(tool.rows, recipe)}
