"""The table of other tools' settings: whole against their own schemas, and true of what the readers do."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Callable
from functools import partial
from importlib.metadata import version

import pytest

from peftbench.recipes.rows import read
from peftbench.recipes.settings import Settings
from peftbench.recipes.sharding import read_accelerate, read_deepspeed
from peftbench.recipes.tools import axolotl, llamafactory, trainer, trl
from peftbench.recipes.unread import KNOWN_SETTINGS, known, unread

with open(KNOWN_SETTINGS, encoding="utf-8") as file:
    TABLES = json.load(file)

FULL_TRAINER = {"fsdp": True, "activation_checkpointing": True}
READERS: dict[str, tuple[Callable, tuple[dict, ...]]] = {
    "axolotl": (partial(read, axolotl.TOOL), (
        {"adapter": "qlora", "load_in_4bit": True, "lora_r": 8, "gradient_checkpointing_kwargs": {}, "fsdp": "yes"},
        {"fsdp_config": {"reshard_after_forward": True}},
    )),
    "TRL": (partial(read, trl.TOOL), ({"use_peft": True, "load_in_4bit": True, **FULL_TRAINER},)),
    "LLaMA-Factory": (partial(read, llamafactory.TOOL), ({"quantization_bit": 4, **FULL_TRAINER},)),
    "TrainingArguments": (partial(read, trainer.TOOL), (FULL_TRAINER,)),
    "accelerate": (read_accelerate, ({"distributed_type": "FSDP"}, {"distributed_type": "DEEPSPEED"})),
    "DeepSpeed": (read_deepspeed, ({},)),
}  # fmt: skip


def read_of(tool: str) -> set[str]:
    """What the table calls read, with the settings of the tool that this one takes over."""
    tables = [TABLES[name] for name in (tool, *TABLES[tool].get("with", ()))]
    return {name for table in tables for name in table["read"]}


@pytest.mark.parametrize("tool", READERS)
def test_what_the_table_calls_read_is_what_the_reader_asks_for(tool: str) -> None:
    reader, files = READERS[tool]
    asked = set()
    for values in files:
        settings = Settings(values, tool)
        reader(settings)
        asked |= settings.asked
    ignored = {"use_cache"} if tool == "LLaMA-Factory" else set()  # it turns the cache off under checkpointing
    assert asked - {"optimizer", "process_reward_model"} <= read_of(tool)
    assert read_of(tool) - asked <= {"process_reward_model"} | ignored


@pytest.mark.parametrize("tool", TABLES)
def test_a_setting_stands_in_one_place(tool: str) -> None:
    table = TABLES[tool]
    names = [*table["read"], *table["no effect"], *table.get("refused", ())]
    names += [name for group in table["not priced"].values() for name in group]
    assert len(names) == len(set(names))
    assert set(names) == set(known(tool).names) or "with" in table


def fields_of(*classes: type) -> set[str]:
    return {field.name for each in classes for field in dataclasses.fields(each) if field.init}


def schema(tool: str) -> set[str]:
    """The names that the installed tool takes."""
    if tool == "TrainingArguments":
        return fields_of(pytest.importorskip("transformers").TrainingArguments)
    if tool == "BitsAndBytesConfig":
        made = pytest.importorskip("transformers").BitsAndBytesConfig
        return set(inspect.signature(made.__init__).parameters) - {"self", "kwargs"}
    if tool == "accelerate":
        return fields_of(pytest.importorskip("accelerate.commands.config.config_args").ClusterConfig)
    if tool == "FSDP":
        made = pytest.importorskip("accelerate").FullyShardedDataParallelPlugin
        return fields_of(made) - {"fsdp_version"}  # fsdp_ comes before each name in a file
    if tool == "zero_optimization":
        config = pytest.importorskip("deepspeed.runtime.zero.config").DeepSpeedZeroConfig
        return {field.alias or name for name, field in config.model_fields.items()}
    if tool == "TRL":
        made = pytest.importorskip("trl")
        return fields_of(made.SFTConfig, made.ModelConfig, made.ScriptArguments)
    if tool == "LLaMA-Factory":
        made = pytest.importorskip("llamafactory.hparams")
        return fields_of(made.ModelArguments, made.DataArguments, made.FinetuningArguments, made.TrainingArguments)
    return set(pytest.importorskip("axolotl.utils.schemas.config").AxolotlInputConfig.model_fields)


@pytest.mark.slow
@pytest.mark.oracle
@pytest.mark.parametrize("tool", sorted(set(TABLES) - {"script", "checkpointing", "DeepSpeed", "offload",
                                                       "accelerate deepspeed_config"}))  # fmt: skip
def test_no_field_of_the_schema_is_left_out(tool: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISABLE_VERSION_CHECK", "1")  # LLaMA-Factory refuses to be imported beside a newer transformers
    found = schema(tool)
    package, _, written = TABLES[tool]["version"].partition(" ")
    if version(package) != written:
        pytest.skip(f"the table is of {package} {written}, installed is {version(package)}")
    assert found - known(tool).names == set()


def test_defaults_are_silent_and_costs_are_named() -> None:
    settings = Settings({"torch_compile": True, "neftune_noise_alpha": 5, "seed": 3, "fsdp_config": {}}, "TRL")
    read(trl.TOOL, settings)
    notes = " ".join(map(str, unread(settings)))
    assert "torch_compile fuses" in notes and "neftune_noise_alpha adds" in notes and "seed" not in notes


@pytest.mark.parametrize(
    ("name", "meant"),
    [("micro_batch_sise", "micro_batch_size"), ("lora_target_linears", "lora_target_linear"), ("zzz", None)],
)
def test_a_slip_is_told(name: str, meant: str | None) -> None:
    (note,) = unread(Settings({name: 3}, "axolotl"))
    assert str(note).endswith(f"Did you mean {meant}?" if meant else "may change the memory.")
