"""Read the files of somebody's training run: tell by its keys whose each is, and put them together to one recipe."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from peftbench.base.errors import CatalogError, SpecError
from peftbench.inputs.recipe import ParallelismSpec, QuantizationSpec, TrainingSpec
from peftbench.recipes.documents import HINT, read_document
from peftbench.recipes.rows import Tool, on_host, read
from peftbench.recipes.settings import Reading, Settings, Unread
from peftbench.recipes.sharding import checkpoints_by_fsdp, read_accelerate, read_deepspeed
from peftbench.recipes.tools import axolotl, llamafactory, script, trainer, trl
from peftbench.recipes.unread import unread

_KINDS: tuple[tuple[str, frozenset[str]], ...] = (
    ("script", frozenset({"TRAINING_ARGUMENTS"})),
    ("adapter_config", frozenset({"peft_type"})),
    ("accelerate", frozenset({"distributed_type"})),
    ("DeepSpeed", frozenset({"zero_optimization"})),
    ("axolotl", frozenset({"base_model", "sequence_len"})),
    ("LLaMA-Factory", frozenset({
        "finetuning_type", "cutoff_len", "stage", "lora_target", "quantization_bit", "flash_attn", "lora_rank",
        "template", "dataset_dir",
    })),
    ("TRL", frozenset({
        "model_name_or_path", "use_peft", "max_length", "lora_r", "lora_target_modules", "packing_strategy",
        "attn_implementation", "completion_only_loss", "assistant_only_loss",
    })),
    ("TrainingArguments", frozenset({"per_device_train_batch_size", "gradient_accumulation_steps", "optim"})),
    ("BitsAndBytesConfig", frozenset({"bnb_4bit_quant_type", "bnb_4bit_compute_dtype", "load_in_4bit"})),
)  # fmt: skip
"""A file is of the first kind that it has a key of: keys that only that tool has, or that rule out those below."""

_MODELS = {"base_model", "model_name_or_path"}
"""Names of the model that no tool has both."""

_FILES = ("deepspeed", "fsdp_config", "deepspeed_config_file")
"""Settings that may name a file instead of holding what is in it."""

_RUNS = {tool.name: tool for tool in (script.TOOL, axolotl.TOOL, llamafactory.TOOL, trl.TOOL, trainer.TOOL)}
_SHARDING: Mapping[str, Callable[[Settings], ParallelismSpec]] = {
    "accelerate": read_accelerate,
    "DeepSpeed": read_deepspeed,
}


def read_files(paths: Iterable[str]) -> Reading:
    """One recipe from the files of a run: one that says how to train, and those that belong to it.

    Raises CatalogError for files that cannot be read or are nobody's, SpecError for values that cannot be.
    """
    parts: dict[str, Settings] = {}
    for path in paths:
        settings = settings_of(read_document(path), path)
        if settings.tool in parts:
            raise SpecError(f"two of the files are {settings.tool} files.", "Name one.")
        parts[settings.tool] = settings
    runs = [tool for tool in parts if tool in _RUNS]
    if len(runs) != 1:
        what = f"the files are {' and '.join(parts)}" if len(runs) > 1 else f"{' and '.join(parts)} is a part of a run"
        raise SpecError(f"{what}: one file must say how to train.", HINT)
    _check_found(parts)
    tool, run = _RUNS[runs[0]], parts.pop(runs[0])
    reading = _together(tool, read(tool, run), parts)
    said = [each for settings in (run, *parts.values()) for each in unread(settings)]
    found = tuple(each for each in said if isinstance(each, Unread))
    return reading._replace(notes=(*map(str, said), *_count_note(reading, parts)), unread=found)


def settings_of(values: Mapping[str, object], path: str) -> Settings:
    """The settings, of the tool that their names belong to. Raises CatalogError where no tool has them."""
    if values.keys() >= _MODELS:
        what = f"{path} has base_model, which is axolotl's, and model_name_or_path, which is not."
        raise CatalogError(what, "Leave out what belongs to another tool.")
    for tool, keys in _KINDS:
        if keys & values.keys():
            return Settings(_with_files(values, path), tool)
    found = ", ".join(list(values)[:4])
    raise CatalogError(f"{path} is not a recognised configuration file: it has {found[:80]}.", HINT)


def _with_files(values: Mapping[str, object], path: str) -> Mapping[str, object]:
    """Settings that name another file are replaced by what is in it, where it is at hand; in sections too."""
    filled = {}
    for name, value in values.items():
        if name in _FILES and isinstance(value, str) and value.strip():
            value = _beside(value, path)
        elif name == "deepspeed_config" and isinstance(value, Mapping):
            value = _with_files(value, path)
        filled[name] = value
    return filled


def _beside(named: str, path: str) -> Mapping[str, object] | str:
    """The file that another one names, from its folder or from here; its name where it is at neither."""
    for folder in (os.path.dirname(path), ""):
        place = os.path.join(folder, named)
        if os.path.isfile(place):
            return dict(read_document(place))
    return named


def _check_found(parts: Mapping[str, Settings]) -> None:
    """Raise CatalogError for a file that is named and is neither at hand nor among those that were given."""
    for settings in parts.values():
        section = settings.values.get("deepspeed_config")
        inner = section if isinstance(section, Mapping) else {}
        for name in _FILES:
            missing = settings.values.get(name) or inner.get(name)
            if isinstance(missing, str) and missing.strip() and not (name == "deepspeed" and "DeepSpeed" in parts):
                what = f"the {settings.tool} file names the file {missing[:80]}, which is not there."
                raise CatalogError(what, "Put it beside, or name it too: --from is taken more than once.")


def _together(tool: Tool, reading: Reading, parts: Mapping[str, Settings]) -> Reading:
    """Add the adapter, the quantization and the GPUs of the files that come with the run's own."""
    recipe, model = reading.recipe, reading.model
    if "adapter_config" in parts:
        settings = parts["adapter_config"]
        model = model or settings.word_or_none("base_model_name_or_path")
        recipe = replace(recipe, adapter=trainer.read_adapter(settings))
    if "BitsAndBytesConfig" in parts:
        stored = trainer.take_bitsandbytes(parts["BitsAndBytesConfig"])
        recipe = replace(recipe, quantization=QuantizationSpec(**stored))
    for name, read_parallelism in _SHARDING.items():
        if name in parts:
            recipe = replace(recipe, parallelism=read_parallelism(parts[name]))
    if "accelerate" in parts:
        recipe = _launched(recipe, parts["accelerate"])
    return reading._replace(recipe=on_host(tool.settle(recipe)), model=model)


def _launched(recipe: TrainingSpec, accelerate: Settings) -> TrainingSpec:
    """FSDP's own checkpointing, and autocast that the launcher turns on where the run itself has none."""
    half = str(accelerate.given("mixed_precision"))
    if half in ("fp16", "bf16") and not recipe.autocast:
        accelerate.said.append(f"mixed_precision {half} of accelerate is on, where the run itself asks for none.")
        recipe = replace(recipe, autocast=True)
    if half == "fp8":
        accelerate.said.append(Unread("mixed_precision fp8", "computes in 8 bit"))
    return replace(recipe, gradient_checkpointing=recipe.gradient_checkpointing or checkpoints_by_fsdp(accelerate))


def _count_note(reading: Reading, parts: Mapping[str, Settings]) -> tuple[str, ...]:
    parallelism = reading.recipe.parallelism
    if "accelerate" in parts or parallelism.strategy == "none":
        return ()
    return (f"the files do not count the GPUs: {parallelism.strategy} is priced on one.",)
