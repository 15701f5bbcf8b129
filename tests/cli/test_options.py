"""The options of every verb, frozen: a new one is a decision, made here."""

from __future__ import annotations

import click

from peftbench.cli import VERBS, main
from peftbench.cli.ask.options import SECTIONS
from peftbench.decide.from_options import OPTIONS

PLAN = {
    "--model",
    "--from",
    "--gpu",
    "--gpu-memory",
    "--no-gpu",
    "--calibration",
    "--method",
    "--task",
    "--task-type",
    "--num-labels",
    "--target-length",
    "--audio-seconds",
    "--sequence-length",
    "--padded",
    "--no-padded",
    "--micro-batch-size",
    "--gradient-accumulation-steps",
    "--sync-each-batch",
    "--no-sync-each-batch",
    "--gradient-checkpointing",
    "--no-gradient-checkpointing",
    "--use-reentrant",
    "--no-use-reentrant",
    "--dtype",
    "--autocast",
    "--no-autocast",
    "--optimizer",
    "--attention",
    "--loss",
    "--fused-kernels",
    "--transformers",
    "--loop",
    "--device-map",
    "--zero-grad",
    "--use-cache",
    "--no-use-cache",
    "--gpus",
    "--nodes",
    "--parallel",
    "--cpu-offload",
    "--offload-params",
    "--no-offload-params",
    "--reduce-bucket-size",
    "--overlap-comm",
    "--no-overlap-comm",
    "--max-live-parameters",
    "--sub-group-size",
    "--loading",
    "--link",
    "--r",
    "--target-modules",
    "--adapter-dtype",
    "--use-dora",
    "--use-rslora",
    "--lora-dropout",
    "--lora-alpha",
    "--num-virtual-tokens",
    "--adapter-option",
    "--adapter-config",
    "--quant-type",
    "--blocksize",
    "--bits",
    "--double-quant",
    "--no-double-quant",
    "--compute-dtype",
    "--upcast-unquantized",
    "--no-upcast-unquantized",
    "--upcast-norms",
    "--no-upcast-norms",
    "--prompt-tokens",
    "--new-tokens",
    "--batch-size",
    "--adapter",
    "--dry-run",
    "--batch-lengths",
    "--torch-empty-cache-steps",
    "--alloc-conf",
    "--extrapolate",
    "--dry-run-device",
    "--timeout",
    "--no-cache",
    "--max",
    "--explain",
    "--framework",
    "--check",
    "--format",
}


def verb(name: str) -> click.Command:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    return command


def flags(command: click.Command) -> set[str]:
    return {flag for param in command.params for flag in (*param.opts, *param.secondary_opts)}


def test_the_options_of_plan_are_a_decision() -> None:
    assert flags(verb("plan")) == PLAN


def test_the_options_of_the_lists_are_a_decision() -> None:
    assert flags(verb("models")) == flags(verb("gpus")) == {"words", "--format"}


def test_every_verb_and_option_has_help() -> None:
    for name in VERBS:
        command = verb(name)
        assert command.help and VERBS[name]
        assert all(p.help for p in command.params if isinstance(p, click.Option))


def test_every_recipe_option_of_the_command_line_reaches_a_recipe() -> None:
    sections = ("Training recipe", "Several GPUs", "Adapter", "Quantization", "Inference")
    names = {option.name for section in sections for option in SECTIONS[section]}
    assert names - {"adapter_option", "adapter_config"} == set(OPTIONS) - {"adapter_options"}
