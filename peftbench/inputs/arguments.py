"""What is asked about: a model, a recipe of a task, and a card or none."""

from __future__ import annotations

from types import NoneType

from peftbench.base.plain import check_class
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.inputs.model.spec import ModelSpec


def check_arguments(model: object, recipe: object, task: type, gpu: object) -> None:
    """Raise SpecError where a caller in Python gives something else: a name, a mapping, the recipe of another task."""
    check_class(ModelSpec, model=model)
    check_class(task, recipe=recipe)
    check_class((GpuSpec, NoneType), gpu=gpu)
