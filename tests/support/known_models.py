"""The checkpoints of the catalogue that tests go through."""

from __future__ import annotations

from itertools import chain

from peftbench.catalog.models import CatalogModel, list_models

NOT_YET_RIGHT = {
    "google/gemma-3-4b-it", "google/gemma-3-12b-it", "google/gemma-3-27b-it",
    "Qwen/Qwen3-Embedding-0.6B", "Qwen/Qwen3-Embedding-4B", "Qwen/Qwen3-Embedding-8B",
    "intfloat/e5-mistral-7b-instruct",
}  # fmt: skip
"""Whose formula has other parameters than transformers' class: the vision tower is missing, or there is no head."""

BY_FORMULA = tuple(model for model in list_models() if model.has_formula and model.id not in NOT_YET_RIGHT)


def _ends(model_type: str) -> set[str]:
    of_type = [model for model in BY_FORMULA if model.config["model_type"] == model_type]
    return {most(of_type, key=lambda model: model.num_parameters).id for most in (min, max)}


TYPES = tuple(dict.fromkeys(str(model.config["model_type"]) for model in BY_FORMULA))
FEW = frozenset(chain.from_iterable(map(_ends, TYPES)))
"""The ids of the smallest and the largest of each type, for what takes long."""
SMALLEST: dict[str, CatalogModel] = {
    model_type: min(
        (model for model in BY_FORMULA if model.config["model_type"] == model_type),
        key=lambda model: model.num_parameters,
    )
    for model_type in TYPES
}
