"""Read the files of somebody's training run: tell by its keys whose each is, and put them together to one recipe."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from peftbench.errors import CatalogError, SpecError
from peftbench.recipes import axolotl, llamafactory, trainer, trl
from peftbench.recipes.documents import HINT, read_document
from peftbench.recipes.settings import Reading, Settings
from peftbench.recipes.sharding import read_accelerate, read_deepspeed
from peftbench.recipes.unread import unread
from peftbench.spec.parallelism import ParallelismSpec

_KINDS: tuple[tuple[str, frozenset[str]], ...] = (
    ("script", frozenset({"TRAINING_ARGUMENTS"})),
    ("adapter_config", frozenset({"peft_type"})),
    ("accelerate", frozenset({"distributed_type"})),
    ("DeepSpeed", frozenset({"zero_optimization"})),
    ("axolotl", frozenset({"base_model", "sequence_len"})),
    ("LLaMA-Factory", frozenset({
        "finetuning_type", "cutoff_len", "stage", "lora_target", "quantization_bit", "flash_attn", "lora_rank",
    })),
    ("TRL", frozenset({
        "model_name_or_path", "use_peft", "max_length", "lora_r", "lora_target_modules", "packing_strategy",
        "attn_implementation", "completion_only_loss", "assistant_only_loss",
    })),
    ("TrainingArguments", frozenset({"per_device_train_batch_size", "gradient_accumulation_steps", "optim"})),
    ("BitsAndBytesConfig", frozenset({"bnb_4bit_quant_type", "bnb_4bit_compute_dtype", "load_in_4bit"})),
)  # fmt: skip
"""A file is of the first kind that it has a key of: keys that only that tool has, or that rule out those below."""

_RUNS: Mapping[str, Callable[[Settings], Reading]] = {
    "script": trainer.read_script,
    "axolotl": axolotl.read,
    "LLaMA-Factory": llamafactory.read,
    "TRL": trl.read,
    "TrainingArguments": trainer.read,
}
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
    reading = _together(_RUNS[runs[0]](parts[runs[0]]), parts)
    notes = [note for settings in parts.values() for note in unread(settings)]
    return reading._replace(notes=(*reading.notes, *notes, *_count_note(reading, parts)))


def settings_of(values: Mapping[str, object], path: str) -> Settings:
    """The settings, of the tool that their names belong to. Raises CatalogError where no tool has them."""
    for tool, keys in _KINDS:
        if keys & values.keys():
            return Settings(_with_deepspeed(values, path), tool)
    found = ", ".join(list(values)[:4])
    raise CatalogError(f"{path} is the file of no tool that is known here: it has {found[:80]}.", HINT)


def _with_deepspeed(values: Mapping[str, object], path: str) -> Mapping[str, object]:
    """A deepspeed setting that names a file is replaced by what is in it, where it is at hand."""
    named = values.get("deepspeed")
    if not isinstance(named, str):
        return values
    for folder in (os.path.dirname(path), ""):
        place = os.path.join(folder, named)
        if os.path.isfile(place):
            return {**values, "deepspeed": dict(read_document(place))}
    raise CatalogError(
        f"{path} names the DeepSpeed file {named[:80]}, which is not there.",
        "Put it beside, or name it too: --from is taken more than once.",
    )


def _together(reading: Reading, parts: Mapping[str, Settings]) -> Reading:
    """Add the adapter, the quantization and the GPUs of the files that come with it."""
    recipe, model = reading.recipe, reading.model
    if "adapter_config" in parts:
        settings = parts["adapter_config"]
        model = model or settings.word_or_none("base_model_name_or_path")
        recipe = replace(recipe, adapter=trainer.read_adapter(settings))
    if "BitsAndBytesConfig" in parts:
        recipe = replace(recipe, quantization=trainer.read_bitsandbytes(parts["BitsAndBytesConfig"]))
    for tool, read in _SHARDING.items():
        if tool in parts:
            recipe = replace(recipe, parallelism=read(parts[tool]))
    return reading._replace(recipe=recipe, model=model)


def _count_note(reading: Reading, parts: Mapping[str, Settings]) -> tuple[str, ...]:
    parallelism = reading.recipe.parallelism
    if "accelerate" in parts or parallelism.strategy == "none":
        return ()
    return (f"the files do not count the GPUs: {parallelism.strategy} is priced on one.",)
