"""The `peftbench plan` command that prices a row of the ranking again."""

from __future__ import annotations

from shlex import quote

from peftbench.decide.card import settle_training
from peftbench.decide.from_options import training_recipes
from peftbench.decide.recipe import differences
from peftbench.estimate.time.step import FRAMEWORKS
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.recipe.training import TrainingSpec


def plan_command(
    name: str, model: ModelSpec, training: TrainingSpec, gpu: GpuSpec, framework: str = FRAMEWORKS[0],
    calibration: str | None = None,
) -> str:  # fmt: skip
    """The command on one line."""
    return " ".join(("peftbench plan", *plan_words(name, model, training, gpu, framework, calibration)))


def plan_words(
    name: str, model: ModelSpec, training: TrainingSpec, gpu: GpuSpec, framework: str = FRAMEWORKS[0],
    calibration: str | None = None,
) -> list[str]:  # fmt: skip
    """The model as it was named, the card, the method, and all that is not a default; quoted for a shell."""
    default, _ = settle_training(model, training_recipes((training.method,), {})[0], gpu)
    words = ["--model", name, "--gpu", gpu.name, "--method", training.method]
    words += [word for each in differences(default, training) for word in each.arguments]
    words += ["--framework", framework] if framework != FRAMEWORKS[0] else []
    words += ["--calibration", calibration] if calibration else []
    return [quote(word) for word in words]
