"""Several GPUs in other tools' words: DeepSpeed's JSON, accelerate's YAML, and FSDP's options, both ways."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from peftbench.base.errors import NoFormula
from peftbench.inputs.recipe import ONE_GPU, ParallelismSpec, TrainingSpec
from peftbench.inputs.recipe.parallelism import MOST_NUMEL, STAGE_3_NUMEL
from peftbench.recipes.kinds import COUNT
from peftbench.recipes.rows import Found, Row, Rule, give, half, take
from peftbench.recipes.settings import Settings, Unread

T = TypeVar("T")
_STAGES = {0: "ddp", 1: "zero1", 2: "zero2", 3: "zero3"}

_PLAIN = {"NO": "none", "MULTI_GPU": "ddp"}
"""accelerate's distributed_type of what it needs no plugin for."""
_COUNTS = (Row("num_machines", "nodes", COUNT, 1), Row("num_processes", "gpus", COUNT, 1))
_OFFLOADED = ("optimizer", "param")
_BUCKET_NUMEL = 500_000_000
"""DeepSpeed's reduce_bucket_size where a file leaves it out."""
_ADAM = ("adam", "adamw")
"""Optimizers of a DeepSpeed file that have the states of the Trainer's own AdamW."""


def read_deepspeed(settings: Settings) -> ParallelismSpec:
    """A DeepSpeed configuration, which does not say how many GPUs there are."""
    for name in ("bf16", "fp16", "gradient_accumulation_steps"):  # the Trainer's own, where the recipe has them from
        settings.given(name)
    own = settings.values.get("optimizer")
    if isinstance(own, Mapping) and str(own.get("type")).lower() in _ADAM:
        settings.given("optimizer")
    section = settings.section("zero_optimization")
    devices = [section.section(f"offload_{what}").word("device", "none") for what in _OFFLOADED]
    return _zero(_stage(section, "stage", 0), devices, section)


def read_accelerate(settings: Settings) -> ParallelismSpec:
    """An accelerate configuration: kind, processes and machines."""
    kind = settings.given("distributed_type")
    kind = "NO" if kind is False else settings.word("distributed_type", "NO").upper()  # YAML takes a bare NO for false
    settings.given("mixed_precision")
    if kind == "DEEPSPEED":
        found = _accelerate_zero(settings.section("deepspeed_config"))
    elif kind == "FSDP":
        found = read_fsdp(settings.section("fsdp_config"))
    elif kind in _PLAIN:
        found = ParallelismSpec(strategy=_PLAIN[kind])
    else:
        raise NoFormula(f"distributed_type {kind[:40]} is not modelled.", "NO, MULTI_GPU, FSDP and DEEPSPEED are.")
    return replace(found, **take(_COUNTS, settings))


def _accelerate_zero(section: Settings) -> ParallelismSpec:
    """DeepSpeed's own file where it names one; stage 2 is accelerate's default."""
    if isinstance(section.given("deepspeed_config_file"), Mapping):
        return read_deepspeed(section.section("deepspeed_config_file"))
    devices = [section.word(f"offload_{what}_device", "none") for what in _OFFLOADED]
    found = _zero(_stage(section, "zero_stage", 2), devices, section)
    whole = found.strategy == "zero3" and not section.flag("zero3_init_flag", True)
    return replace(found, loading="whole") if whole else found


def _stage(section: Settings, name: str, default: int) -> int:
    stage = section.given(name)
    if stage is None:
        return default
    if type(stage) is not int or stage not in _STAGES:
        raise section.wrong(name, stage, "0, 1, 2 or 3")
    return stage


def _zero(stage: int, devices: list[str], section: Settings) -> ParallelismSpec:
    """Stage 3 offloads the optimizer with the weights or without; weights alone are priced as none, which is more."""
    strategy, (optimizer, weights) = _STAGES[stage], [device != "none" for device in devices]
    if stage == 0:
        return ParallelismSpec(strategy=strategy)
    if stage == 3 and weights and not optimizer:
        section.said.append("stage 3 offloads weights alone: priced without offload, which is more.")
    live, size = _limits(section) if stage == 3 else (STAGE_3_NUMEL, STAGE_3_NUMEL)
    return ParallelismSpec(
        strategy=strategy, cpu_offload=optimizer, offload_params=weights or not (optimizer and stage == 3),
        reduce_bucket_size=_elements(section, "reduce_bucket_size", _BUCKET_NUMEL, None),
        overlap_comm=stage < 3 and section.flag("overlap_comm", False), max_live_parameters=live, sub_group_size=size,
    )  # fmt: skip


def _limits(section: Settings) -> tuple[int, int]:
    """Elements that stage 3 keeps gathered, and those that it updates at a time.

    What is used again within max_reuse_distance stays: between its two passes that is half of it.
    """
    live, reuse = (
        _elements(section, f"stage3_{name}", _elements(section, name, STAGE_3_NUMEL, STAGE_3_NUMEL), STAGE_3_NUMEL)
        for name in ("max_live_parameters", "max_reuse_distance")
    )
    size = _elements(section, "sub_group_size", STAGE_3_NUMEL, STAGE_3_NUMEL)
    return max(live, reuse // 2), size


def _elements(section: Settings, name: str, missing: int, auto: T) -> int | T:
    """A number of elements, which JSON has as 5e8 too; what stands for none, and for the Trainer's "auto"."""
    value = section.given(name)
    if value is None or value == "auto":
        return auto if value else missing
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 1 <= value <= MOST_NUMEL:
        raise section.wrong(name, value, 'a number of elements, or "auto"')
    return int(value)


def read_fsdp(section: Settings, words: tuple[str, ...] = ()) -> ParallelismSpec:
    """FSDP's own options, with or without "fsdp_" before their names; `words` are those of the older fsdp setting.

    reshard_after_forward: true or FULL_SHARD shards the weights in forward as well; false keeps them till backward.
    """
    _say_wrapping(section)
    reshard = fsdp_option(section, "reshard_after_forward")
    asked = fsdp_option(section, "sharding_strategy")
    sharding = str(next((word for word in words if word.endswith(("shard", "shard_grad_op", "zero2"))), "")).upper()
    full = asked if reshard is None else reshard
    full = full if sharding in ("", "FULL_SHARD") else sharding
    kind = str(full).upper() if isinstance(full, (str, int)) else ""
    if kind in ("NO_SHARD", "3"):
        return ParallelismSpec(strategy="ddp")
    if kind.startswith(("HYBRID", "_HYBRID")) or kind in ("4", "5"):
        section.said.append(Unread(f"sharding_strategy {full}", "splits the model over some of the GPUs only"))
    keeps = full is False or kind.endswith(("SHARD_GRAD_OP", "ZERO2")) or kind in ("2", "5", "FALSE")
    offload = any(fsdp_option(section, name) is True for name in ("offload_params", "cpu_offload"))
    whole = fsdp_option(section, "cpu_ram_efficient_loading") is False
    return ParallelismSpec(
        strategy="fsdp-grad-op" if keeps else "fsdp", cpu_offload=offload or "offload" in words,
        loading="whole" if whole else None,
    )  # fmt: skip


def fsdp_option(section: Settings, name: str) -> object:
    """An option by its name, or with "fsdp_" before it; words for true and false as accelerate takes them."""
    values = [section.given(each) for each in (name, f"fsdp_{name}")]
    value = next((value for value in values if value is not None), None)
    word = value.lower() if isinstance(value, str) else ""
    return {"true": True, "false": False}.get(word, value)


def checkpoints_by_fsdp(settings: Settings) -> bool:
    """Whether FSDP wraps each layer in checkpointing of its own, which is not reentrant."""
    return fsdp_option(settings.section("fsdp_config"), "activation_checkpointing") is True


def _say_wrapping(section: Settings) -> None:
    """Say where the layers are not gathered one at a time, or not by FSDP2."""
    wrapping = fsdp_option(section, "auto_wrap_policy")
    if wrapping in ("NO_WRAP", "SIZE_BASED_WRAP"):
        section.said.append(Unread(f"auto_wrap_policy {wrapping}", "gathers more than a layer at a time"))
    if fsdp_option(section, "version") in (1, "1"):
        section.said.append("FSDP 1 is priced as FSDP 2: its flat parameters may take more.")


def read_trainer(settings: Settings) -> ParallelismSpec:
    """TrainingArguments' deepspeed and fsdp, which the other tools take over; the launcher counts the GPUs.

    fsdp is true, or words such as "shard_grad_op offload auto_wrap"; axolotl needs fsdp_config alone.
    """
    if isinstance(settings.given("deepspeed"), dict):
        return read_deepspeed(settings.section("deepspeed"))
    asked, section = settings.given("fsdp"), settings.section("fsdp_config")
    if not asked and (settings.tool != "axolotl" or not section.values):
        return ONE_GPU
    lines = asked if isinstance(asked, list) else [asked]
    words = [word for line in lines if isinstance(line, str) for word in line.replace(",", " ").split()]
    return read_fsdp(section, tuple(words))


# ── writing ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def give_sharding(recipe: TrainingSpec) -> dict[str, object]:
    """The same as TrainingArguments take it; plain data parallelism is the launcher's alone."""
    parallelism = recipe.parallelism
    accumulation = {"gradient_accumulation_kwargs": {"sync_each_batch": True}}
    synced: dict[str, object] = {"accelerator_config": accumulation} if recipe.sync_each_batch else {}
    if parallelism.strategy.startswith("zero"):
        return {"deepspeed": deepspeed_settings(parallelism, half(recipe)), **synced}
    if parallelism.strategy.startswith("fsdp"):
        return {"fsdp": True, "fsdp_config": {"version": 2, **fsdp_settings(parallelism)}, **synced}
    return synced


def take_sharding(settings: Settings, _found: Found) -> Found:
    """The GPUs, and whether accelerate reduces gradients in every micro-batch."""
    return {"parallelism": read_trainer(settings), "sync_each_batch": _syncs(settings)}


def _syncs(settings: Settings) -> bool:
    """sync_each_batch of the Trainer's accelerator_config, which may be the name of a file instead."""
    if isinstance(settings.given("accelerator_config"), str):
        settings.said.append("accelerator_config names a file, which is not read: sync_each_batch is taken as false.")
        return False
    section = settings.section("accelerator_config").section("gradient_accumulation_kwargs")
    return section.flag("sync_each_batch", False)


SHARDING = Rule(take_sharding, give_sharding)


def deepspeed_settings(parallelism: ParallelismSpec, precision: str) -> dict[str, object]:
    """A DeepSpeed configuration that leaves to the Trainer what the Trainer says ("auto")."""
    stage = int(parallelism.strategy.removeprefix("zero"))
    zero: dict[str, object] = {"stage": stage, "reduce_bucket_size": parallelism.reduce_bucket_size or "auto"}
    if parallelism.cpu_offload:
        zero["offload_optimizer"] = {"device": "cpu"}
    if parallelism.offloads_weights:
        zero["offload_param"] = {"device": "cpu"}
    if stage == 3 and not parallelism.reduce_bucket_size:
        zero |= dict.fromkeys(("stage3_prefetch_bucket_size", "stage3_param_persistence_threshold"), "auto")
    if stage < 3 and parallelism.overlap_comm:
        zero["overlap_comm"] = True
    if stage == 3:
        zero |= _own_limits(parallelism)
    auto = ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping")
    halves = {name: {"enabled": precision == name} for name in ("bf16", "fp16")}
    return {**dict.fromkeys(auto, "auto"), **halves, "zero_optimization": zero}


def _own_limits(parallelism: ParallelismSpec) -> dict[str, object]:
    """Those of stage 3 that are not DeepSpeed's own."""
    live, size = parallelism.max_live_parameters, parallelism.sub_group_size
    limits: dict[str, object] = {} if size == STAGE_3_NUMEL else {"sub_group_size": size}
    if live != STAGE_3_NUMEL:
        limits |= dict.fromkeys(("stage3_max_live_parameters", "stage3_max_reuse_distance"), live)
    return limits


def fsdp_settings(parallelism: ParallelismSpec, prefix: str = "") -> dict[str, object]:
    """FSDP2's options."""
    whole = {f"{prefix}cpu_ram_efficient_loading": False} if parallelism.loading == "whole" else {}
    return {
        **whole,
        f"{prefix}offload_params": parallelism.cpu_offload,
        f"{prefix}reshard_after_forward": parallelism.strategy == "fsdp",
        f"{prefix}auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        f"{prefix}state_dict_type": "SHARDED_STATE_DICT",
    }


def accelerate_settings(parallelism: ParallelismSpec, precision: str) -> dict[str, object]:
    """What `accelerate launch --config_file` takes."""
    kind, plugin = _plugin(parallelism)
    return {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": kind,
        "mixed_precision": precision,
        **give(_COUNTS, parallelism),
        "machine_rank": 0,
        **plugin,
    }


def launched(parallelism: ParallelismSpec) -> ParallelismSpec:
    """What becomes of it in accelerate's file, whose section for DeepSpeed has no word for the buckets."""
    if not parallelism.strategy.startswith("zero"):
        return parallelism
    return replace(
        parallelism, reduce_bucket_size=_BUCKET_NUMEL, overlap_comm=False, max_live_parameters=STAGE_3_NUMEL,
        sub_group_size=STAGE_3_NUMEL,
    )  # fmt: skip


def _plugin(parallelism: ParallelismSpec) -> tuple[str, Mapping[str, object]]:
    """distributed_type, and the section that belongs to it."""
    strategy = parallelism.strategy
    if strategy.startswith("fsdp"):
        return "FSDP", {"fsdp_config": {"fsdp_version": 2, **fsdp_settings(parallelism, "fsdp_")}}
    if not strategy.startswith("zero"):
        return next(kind for kind, plain in _PLAIN.items() if plain == strategy), {}
    stage, device = int(strategy[-1]), {True: "cpu", False: "none"}
    offload = {
        "offload_optimizer_device": device[parallelism.cpu_offload],
        "offload_param_device": device[parallelism.offloads_weights],
    }
    sharded = stage == 3 and parallelism.loading != "whole"
    return "DEEPSPEED", {"deepspeed_config": {"zero_stage": stage, **offload, "zero3_init_flag": sharded}}
