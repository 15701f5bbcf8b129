"""Several GPUs in other tools' words: DeepSpeed's JSON, accelerate's YAML, and FSDP's options, both ways."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from peftbench.errors import NoFormula
from peftbench.recipes.settings import Settings
from peftbench.spec.dtype import DType
from peftbench.spec.parallelism import ParallelismSpec
from peftbench.spec.training import TrainingSpec

_STAGES = {0: "ddp", 1: "zero1", 2: "zero2", 3: "zero3"}

ONE = ParallelismSpec()


def read_deepspeed(settings: Settings) -> ParallelismSpec:
    """A DeepSpeed configuration, which does not say how many GPUs there are."""
    for name in ("bf16", "fp16", "gradient_accumulation_steps"):  # the Trainer's own, where the recipe has them from
        settings.given(name)
    section = settings.section("zero_optimization")
    stage = _stage(section, "stage")
    devices = [section.section(f"offload_{what}").word("device", "none") for what in ("optimizer", "param")]
    return _zero(stage, devices)


def read_accelerate(settings: Settings) -> ParallelismSpec:
    """An accelerate configuration: kind, processes and machines."""
    kind = _kind(settings)
    gpus, nodes = settings.count("num_processes", 1), settings.count("num_machines", 1)
    if kind == "DEEPSPEED":
        found = _accelerate_zero(settings.section("deepspeed_config"))
    elif kind == "FSDP":
        found = read_fsdp(settings.section("fsdp_config"), "fsdp_")
    elif kind == "MULTI_GPU":
        found = replace(ONE, strategy="ddp")
    elif kind == "NO":
        found = ONE
    else:
        raise NoFormula(f"distributed_type {kind[:40]} is not modelled.", "NO, MULTI_GPU, FSDP and DEEPSPEED are.")
    return replace(found, gpus=gpus, nodes=nodes)


def _kind(settings: Settings) -> str:
    """YAML 1.1 takes a bare NO for false."""
    return "NO" if settings.given("distributed_type") is False else settings.word("distributed_type", "NO").upper()


def _accelerate_zero(section: Settings) -> ParallelismSpec:
    devices = [section.word(f"offload_{what}_device", "none") for what in ("optimizer", "param")]
    return _zero(_stage(section, "zero_stage"), devices)


def _stage(section: Settings, name: str) -> int:
    stage = section.given(name)
    if stage is None:
        return 0
    if type(stage) is not int or stage not in _STAGES:
        raise section.wrong(name, stage, "0, 1, 2 or 3")
    return stage


def _zero(stage: int, devices: list[str]) -> ParallelismSpec:
    offload = stage > 0 and any(device != "none" for device in devices)
    return ParallelismSpec(strategy=_STAGES[stage], cpu_offload=offload)


def read_fsdp(section: Settings, prefix: str = "") -> ParallelismSpec:
    """FSDP's own options, as accelerate ("fsdp_" in front) and axolotl name them.

    reshard_after_forward: true or FULL_SHARD shards the weights in forward as well; false keeps them till backward.
    """
    for name in ("version", "fsdp_version", "auto_wrap_policy", "state_dict_type", "transformer_layer_cls_to_wrap"):
        section.given(f"{prefix}{name}")
    for name in ("cpu_ram_efficient_loading", "sync_module_states", "use_orig_params", "backward_prefetch"):
        section.given(f"{prefix}{name}")
    reshard = section.given(f"{prefix}reshard_after_forward")
    full = section.given(f"{prefix}sharding_strategy") if reshard is None else reshard
    keeps = full is False or str(full).upper() in ("SHARD_GRAD_OP", "2")
    offload = section.flag(f"{prefix}offload_params", False)
    return ParallelismSpec(strategy="fsdp-grad-op" if keeps else "fsdp", cpu_offload=offload)


def read_trainer(settings: Settings) -> ParallelismSpec:
    """TrainingArguments' deepspeed and fsdp, which LLaMA-Factory and TRL take over; the launcher counts the GPUs.

    fsdp is true, or words such as "shard_grad_op offload auto_wrap"; fsdp_config may put "fsdp_" before its names.
    """
    if isinstance(settings.given("deepspeed"), dict):
        return read_deepspeed(settings.section("deepspeed"))
    words, section = settings.given("fsdp"), settings.section("fsdp_config")
    if not words:
        return ONE
    prefix = "fsdp_" if any(name.startswith("fsdp_") for name in section.values) else ""
    found = read_fsdp(section, prefix)
    text = " ".join(map(str, words)) if isinstance(words, list) else str(words)
    strategy = "fsdp-grad-op" if "shard_grad_op" in text else found.strategy
    return replace(found, strategy=strategy, cpu_offload=found.cpu_offload or "offload" in text)


# ── writing ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def trainer_values(recipe: TrainingSpec) -> dict[str, object]:
    """The same as TrainingArguments take it; plain data parallelism is the launcher's alone."""
    parallelism = recipe.parallelism
    if parallelism.strategy.startswith("zero"):
        return {"deepspeed": deepspeed_values(parallelism, precision_of(recipe))}
    if parallelism.strategy.startswith("fsdp"):
        return {"fsdp": True, "fsdp_config": {"version": 2, **fsdp_values(parallelism)}}
    return {}


def precision_of(recipe: TrainingSpec) -> str:
    """accelerate's mixed_precision: the type of autocast."""
    if not recipe.autocast:
        return "no"
    return "fp16" if recipe.dtype is DType.FLOAT16 else "bf16"


def deepspeed_values(parallelism: ParallelismSpec, precision: str) -> dict[str, object]:
    """A DeepSpeed configuration that leaves to the Trainer what the Trainer says ("auto")."""
    stage = int(parallelism.strategy.removeprefix("zero"))
    zero: dict[str, object] = {"stage": stage}
    if parallelism.cpu_offload:
        zero["offload_optimizer"] = {"device": "cpu"}
        if stage == 3:
            zero["offload_param"] = {"device": "cpu"}
    auto = ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping")
    halves = {name: {"enabled": precision == name} for name in ("bf16", "fp16")}
    return {**dict.fromkeys(auto, "auto"), **halves, "zero_optimization": zero}


def fsdp_values(parallelism: ParallelismSpec, prefix: str = "") -> dict[str, object]:
    """FSDP2's options."""
    return {
        f"{prefix}offload_params": parallelism.cpu_offload,
        f"{prefix}reshard_after_forward": parallelism.strategy == "fsdp",
        f"{prefix}auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        f"{prefix}state_dict_type": "SHARDED_STATE_DICT",
    }


def accelerate_values(parallelism: ParallelismSpec, precision: str) -> dict[str, object]:
    """What `accelerate launch --config_file` takes."""
    values: dict[str, object] = {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": _distributed_type(parallelism.strategy),
        "mixed_precision": precision,
        "num_machines": parallelism.nodes,
        "num_processes": parallelism.gpus,
        "machine_rank": 0,
    }
    return {**values, **_plugin(parallelism)}


def _plugin(parallelism: ParallelismSpec) -> Mapping[str, object]:
    if parallelism.strategy.startswith("fsdp"):
        return {"fsdp_config": {"fsdp_version": 2, **fsdp_values(parallelism, "fsdp_")}}
    if not parallelism.strategy.startswith("zero"):
        return {}
    stage, device = int(parallelism.strategy[-1]), "cpu" if parallelism.cpu_offload else "none"
    offload = {"offload_optimizer_device": device, "offload_param_device": device if stage == 3 else "none"}
    return {"deepspeed_config": {"zero_stage": stage, **offload, "zero3_init_flag": stage == 3}}


def _distributed_type(strategy: str) -> str:
    if strategy.startswith("zero"):
        return "DEEPSPEED"
    return {"none": "NO", "ddp": "MULTI_GPU"}.get(strategy, "FSDP")
