"""Write a recipe in another tool's words, and say what that tool will do differently."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from peftbench.base.errors import SpecError
from peftbench.base.visible import quoted, shown
from peftbench.decide.recipe import Difference, differences
from peftbench.inputs.recipe import ParallelismSpec, TrainingSpec
from peftbench.inputs.recipe.parallelism import usual_nodes
from peftbench.recipes.documents import yaml_of
from peftbench.recipes.rows import half, read, write
from peftbench.recipes.settings import Settings
from peftbench.recipes.sharding import accelerate_settings, deepspeed_settings, launched
from peftbench.recipes.tools import axolotl, llamafactory, script, trl

TOOLS = ("transformers", "trl", "axolotl", "llamafactory", "accelerate", "deepspeed")

_SAID = {"transformers": script.TOOL, "trl": trl.TOOL, "axolotl": axolotl.TOOL, "llamafactory": llamafactory.TOOL}
"""Those whose file says how to train; the others' say on how many GPUs."""
_RUN: Mapping[str, tuple[str, str]] = {
    "transformers": ("python {file} train.jsonl", "accelerate launch{counts} {file} train.jsonl"),
    "trl": ("trl sft --config {file}", "trl sft --config {file}{counts}"),
    "axolotl": ("axolotl train {file}", "axolotl train {file} --{counts}"),
    "llamafactory": ("llamafactory-cli train {file}", "{counts} llamafactory-cli train {file}"),
    "accelerate": ("accelerate launch --config_file {file} train.py train.jsonl",) * 2,
}
"""How a file is run: on one GPU, and on several, whose counts are put in."""
_FILE = {
    "transformers": "train.py", "trl": "trl.yaml", "axolotl": "axolotl.yml", "llamafactory": "llamafactory.yaml",
    "accelerate": "accelerate.yaml",
}  # fmt: skip
"""What a file is called where nobody has said so."""

_NEEDS: Mapping[str, str] = {
    "llamafactory": "# dataset_info.json beside it has to describe the dataset `train`.\n",
}


class Export(NamedTuple):
    """A file, and the recipe that it says."""

    text: str
    recipe: TrainingSpec
    differences: tuple[Difference, ...]
    """Options of the asked recipe that the tool has no setting for, and what it does instead."""


def export(model: str, recipe: TrainingSpec, tool: str, path: str | None = None) -> Export:
    """The file for a tool, to be written to `path`. Raises SpecError where the tool cannot do such a recipe at all."""
    file = quoted(path or _FILE.get(tool, ""))
    if tool in ("accelerate", "deepspeed"):
        said = replace(recipe, parallelism=launched(recipe.parallelism) if tool == "accelerate" else recipe.parallelism)
        return Export(_launch_file(recipe, tool, file), said, differences(recipe, said))
    _check(recipe, tool)
    values = write(_SAID[tool], model, recipe)
    reading = read(_SAID[tool], Settings(values, _SAID[tool].name))
    said = replace(reading.recipe, parallelism=recipe.parallelism)  # how many GPUs there are, only the launcher knows
    open_alpha = recipe.adapter is None or recipe.adapter.alpha is None  # then the file has one that is usual
    changes = tuple(d for d in differences(recipe, said) if not (open_alpha and d.option == "--lora-alpha"))
    otherwise = [f"differs from what was asked: {' '.join(each.arguments)}" for each in changes]
    header = _header(tool, file, recipe.parallelism, (*otherwise, *reading.notes))
    if tool == "transformers":
        return Export(script.text(values, header, recipe.parallelism.loading == "sharded"), said, changes)
    return Export(header + yaml_of(values), said, changes)


def _check(recipe: TrainingSpec, tool: str) -> None:
    """Refuse an adapter or a storage of weights that the tool has no word for."""
    adapter, quantization = recipe.adapter, recipe.quantization
    if quantization and not quantization.scheme.built:
        what = f"a checkpoint of {quantization.scheme.library} comes quantized: no file asks for it."
        if not quantization.scheme.checkpoint:
            what = f"no tool's file that peftbench writes asks for weights of {quantization.scheme.library}."
        raise SpecError(what, "Use --quant-type nf4.")
    if adapter and tool != "transformers" and (adapter.peft_type != "lora" or adapter.options):
        raise SpecError(f"{tool} writes LoRA adapters only, not {recipe.method}.", "Use --for transformers.")
    if quantization and recipe.parallelism.loading == "sharded" and tool != "transformers":
        raise SpecError(f"{tool} places quantized weights itself.", "Leave out --loading, or use --for transformers.")
    if recipe.parallelism.strategy == "tensor":
        raise SpecError("tensor parallelism is for inference.", "Choose another --parallel.")


def _header(tool: str, file: str, parallelism: ParallelismSpec, remarks: tuple[str, ...]) -> str:
    lines = [
        f"# Written by peftbench. Run it: {_run(tool, file, parallelism)}",
        f"# Plan it: peftbench plan --from {file}{_counted(parallelism)}",
        *(f"# {shown(remark)}" for remark in remarks),
    ]
    return "\n".join(lines) + "\n" + _NEEDS.get(tool, "")


def _run(tool: str, file: str, parallelism: ParallelismSpec) -> str:
    """The command; on several machines it is started on each of them, with its rank."""
    alone, together = _RUN[tool]
    if parallelism.gpus == 1:
        return alone.format(file=file)
    each, nodes = parallelism.gpus_per_node, parallelism.nodes
    if tool == "llamafactory":
        counts = f"NPROC_PER_NODE={each}" + (f" NNODES={nodes} NODE_RANK=0" if nodes > 1 else "")
    else:
        machines = f" --num_machines {nodes} --machine_rank 0" if nodes > 1 else ""
        counts = f" --num_processes {parallelism.gpus}{machines}"
    return together.format(file=file, counts=counts)


def _counted(parallelism: ParallelismSpec) -> str:
    """What only the launcher knows, as options of plan."""
    if parallelism.strategy == "none":
        return ""
    nodes = f" --nodes {parallelism.nodes}" if parallelism.nodes != usual_nodes(parallelism.gpus) else ""
    offload = " --cpu-offload" if parallelism.cpu_offload else ""
    loading = f" --loading {parallelism.loading}" if parallelism.loading else ""
    link = f" --link {parallelism.link}" if parallelism.link else ""
    return f" --gpus {parallelism.gpus}{nodes} --parallel {parallelism.strategy}{offload}{loading}{link}"


def _launch_file(recipe: TrainingSpec, tool: str, file: str) -> str:
    """The launcher's own file: counts and sharding."""
    if tool == "accelerate":
        settings = accelerate_settings(recipe.parallelism, half(recipe))
        return f"# Run it: {_RUN[tool][0].format(file=file)}\n{yaml_of(settings)}"
    if not recipe.parallelism.strategy.startswith("zero"):
        raise SpecError("a DeepSpeed file is for ZeRO.", "Add --parallel zero3, or use --for accelerate.")
    return json.dumps(deepspeed_settings(recipe.parallelism, half(recipe)), indent=2) + "\n"
