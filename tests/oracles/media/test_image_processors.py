"""The image arithmetic against transformers' own processors, on blank images of 50 sizes, and its rows against towers.

The first needs torchvision and pillow, which nothing else here does: pip install --no-deps pillow torchvision==0.28.0
"""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch
from oracle.image_cases import CASES, vision
from oracle.image_processors import processed, tokens_and_markers

from peftbench.inputs.media.families import images_of

pytestmark = [pytest.mark.oracle, pytest.mark.slow]
KNOWN = [(1, 1), (28, 5600), (224, 224), (448, 448), (512, 512), (700, 500), (1000, 1500), (2000, 300), (3000, 4000)]
DRAWN = random.Random(5)
SIZES = KNOWN + [(int(2 ** DRAWN.uniform(5, 11)), int(2 ** DRAWN.uniform(5, 11))) for _ in range(50 - len(KNOWN))]


def _shapes(found: Any) -> list[tuple[int, ...]]:
    return [tuple(found[name].shape) if name in found else () for name in ("pixel_values", "pixel_values_local")]


@pytest.mark.parametrize("name", CASES)
def test_tokens_and_pixels_are_the_processors_own(name: str) -> None:
    pytest.importorskip("torchvision")
    case = CASES[name]
    for height, width in SIZES:
        found, ours = processed(case, height, width), images_of(case.config, width, height, 1, case.processor)
        assert (ours.cut.tokens, ours.cut.markers) == tokens_and_markers(case, found), (height, width)
        assert [ours.pixel_shape(), ours.local_shape()] == _shapes(found), (height, width)


@pytest.mark.parametrize("name", CASES)
def test_so_are_those_of_three_images(name: str) -> None:
    pytest.importorskip("torchvision")
    case = CASES[name]
    found, ours = processed(case, 700, 500, 3), images_of(case.config, 500, 700, 3, case.processor)
    assert (ours.cut.tokens, ours.cut.markers) == tokens_and_markers(case, found)
    assert [ours.pixel_shape(), ours.local_shape()] == _shapes(found)


def _mllama() -> tuple[Any, str, dict[str, torch.Tensor]]:
    from transformers.models.mllama.modeling_mllama import MllamaVisionConfig, MllamaVisionModel

    config = MllamaVisionConfig(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_global_layers=1, attention_heads=1,
        image_size=560, patch_size=14, max_num_tiles=4, intermediate_layers_indices=[0],
    )  # fmt: skip
    asked = {"aspect_ratio_ids": torch.ones(1, 1, dtype=torch.long), "aspect_ratio_mask": torch.ones(1, 1, 4).long()}
    return MllamaVisionModel(config), "transformer.layers.0", asked


def _llama4() -> tuple[Any, str, dict[str, torch.Tensor]]:
    from transformers.models.llama4.modeling_llama4 import Llama4VisionConfig, Llama4VisionModel

    config = Llama4VisionConfig(
        hidden_size=8, intermediate_size=32, num_hidden_layers=1, num_attention_heads=1, image_size=336, patch_size=14,
        projector_input_dim=8, projector_output_dim=8, vision_output_dim=8,
    )  # fmt: skip
    return Llama4VisionModel(config), "model.layers.0", {}


def _internvl() -> tuple[Any, str, dict[str, torch.Tensor]]:
    from transformers.models.internvl.modeling_internvl import InternVLVisionConfig, InternVLVisionModel

    config = InternVLVisionConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    return InternVLVisionModel(config), "encoder.layer.0", {}


@pytest.mark.parametrize(("family", "make"), [("mllama", _mllama), ("llama4", _llama4), ("internvl", _internvl)])
def test_rows_are_those_that_reach_the_towers_first_layer(family: str, make: Any) -> None:
    """Where a tower adds rows to the patches of a tile."""
    tower, layer, asked = make()
    ours, seen = images_of(vision(family), 500, 300), []

    def look(_: Any, given: tuple[torch.Tensor, ...], named: dict[str, torch.Tensor]) -> None:
        stream = given[0] if given else named.get("hidden_states", named.get("hidden_state"))
        seen.append(math.prod(stream.shape[:-1]))

    tower.get_submodule(layer).register_forward_pre_hook(look, with_kwargs=True)
    with torch.no_grad():
        tower(pixel_values=torch.zeros(ours.pixel_shape()), **asked)
    assert seen == [ours.rows]
