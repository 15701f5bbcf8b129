"""The `peftbench plan` command that prices a row of the ranking again."""

from __future__ import annotations

from shlex import quote

from peftbench.decide.card import settle_training
from peftbench.decide.from_options import training_recipes
from peftbench.decide.recipe import differences
from peftbench.spec.gpu import GpuSpec
from peftbench.spec.model import ModelSpec
from peftbench.spec.training import TrainingSpec


def plan_command(name: str, model: ModelSpec, training: TrainingSpec, gpu: GpuSpec) -> str:
    """The model as it was named, the card, the method, and all that is not a default; on one line."""
    default, _ = settle_training(model, training_recipes((training.method,), {})[0], gpu)
    changed = (word for each in differences(default, training) for word in each.arguments)
    words = ("--model", name, "--gpu", gpu.name, "--method", training.method, *changed)
    return "peftbench plan " + " ".join(map(quote, words))
