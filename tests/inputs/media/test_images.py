"""What images become, pinned; tests/oracles/media/test_image_processors.py compares with transformers."""

from __future__ import annotations

from typing import Any

import pytest
from oracle.image_cases import CASES, vision

from peftbench.base.errors import SpecError
from peftbench.inputs.media.families import FAMILIES, image_family, images_of

HD = {
    "qwen2_vl": (1196, 0, 4784, (4784, 1176)),
    "qwen2_5_vl, the class's limits": (1196, 0, 4784, (4784, 1176)),
    "qwen3_vl": (880, 0, 3520, (3520, 1536)),
    "qwen3_5": (880, 0, 3520, (3520, 1536)),
    "glm4v": (1196, 0, 4784, (4784, 1176)),
    "glm46v": (1196, 0, 4784, (4784, 1176)),
    "ernie4_5_vl_moe": (1196, 0, 4784, (4784, 588)),
    "kimi_k25": (1196, 0, 4784, (4784, 3, 14, 14)),
    "muse_glimmer": (1196, 2, 4784, (4784, 1176)),
    "gemma3": (256, 4, 4096, (1, 3, 896, 896)),
    "gemma3, pan and scan": (768, 12, 12288, (3, 3, 896, 896)),
    "gemma3n": (256, 4, 256, (1, 3, 768, 768)),
    "gemma4": (264, 2, 2520, (1, 2520, 768)),
    "gemma4_unified, 1,120 tokens": (1100, 2, 1120, (1, 1120, 6912)),
    "mllama": (1, 0, 6432, (1, 1, 4, 3, 560, 560)),
    "llama4": (1872, 15, 7501, (13, 3, 336, 336)),
    "mistral3": (1196, 26, 4784, (1, 3, 728, 1288)),
    "pixtral-12b": (2304, 36, 2304, (1, 3, 576, 1024)),
    "lighton_ocr": (1196, 0, 4784, (1, 3, 728, 1288)),
    "llava": (576, 0, 577, (1, 3, 336, 336)),
    "llava_next": (1948, 0, 2885, (1, 5, 3, 336, 336)),
    "llava_onevision": (5967, 0, 6561, (1, 9, 3, 384, 384)),
    "internvl": (2304, 2, 9225, (9, 3, 448, 448)),
    "aya_vision": (1521, 11, 6084, (9, 3, 364, 364)),
    "cohere2_vision": (1792, 9, 7168, (7, 3, 512, 512)),
    "deepseek_ocr2": (545, 0, 8704, (1, 3, 1024, 1024)),
    "paligemma 448": (1024, 0, 1024, (1, 3, 448, 448)),
    "lfm2_vl": (764, 5, 3072, (3, 1024, 768)),
    "idefics3": (2197, 30, 8788, (1, 13, 3, 364, 364)),
    "idefics3, SmolVLM 2.2B": (1053, 30, 9477, (1, 13, 3, 384, 384)),
    "smolvlm, 500M": (832, 30, 13312, (1, 13, 3, 512, 512)),
}
"""Tokens, markers, rows of the tower and shape of pixel_values of one image of 1280 x 720."""


@pytest.mark.parametrize("name", HD)
def test_an_image_of_each_family(name: str) -> None:
    case = CASES[name]
    found = images_of(case.config, 1280, 720, processor=case.processor)
    assert (found.cut.tokens, found.cut.markers, found.rows, found.pixel_shape()) == HD[name]
    assert found.tokens == found.cut.tokens + found.cut.markers


def test_every_family_has_a_case() -> None:
    alike = {"qwen3_vl_moe": "qwen3_vl", "qwen3_5_moe": "qwen3_5", "exaone4_5": "qwen2_vl", "glm4v_moe": "glm4v"}
    assert {id(image_family(case.config)) for case in CASES.values()} == set(map(id, FAMILIES.values()))
    assert all(FAMILIES[name] is FAMILIES[relative] for name, relative in alike.items())
    assert set(HD) == set(CASES)


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        (vision("qwen2_vl"), (2 * 3 * 4784, 1176)),
        (vision("internvl"), (2 * 3 * 9, 3, 448, 448)),
        (vision("llava"), (2 * 3, 3, 336, 336)),
        (vision("mllama"), (2, 3, 4, 3, 560, 560)),
        (vision("smolvlm", image_size=512, patch_size=16), (2, 3 * 13, 3, 512, 512)),
        (vision("llava_onevision"), (2 * 3, 1, 3, 384, 384)),
    ],
)
def test_pixels_of_a_batch_of_two_samples_with_three_images(config: dict[str, Any], shape: tuple[int, ...]) -> None:
    assert images_of(config, 1280, 720, images=3).pixel_shape(samples=2) == shape


def test_bytes_are_of_the_type_that_the_processor_returns() -> None:
    assert images_of(vision("llava"), 1280, 720).pixel_bytes(samples=2) == 2 * 3 * 336 * 336 * 4
    assert images_of(vision("llama4"), 1280, 720).pixel_bytes() == 13 * 3 * 336 * 336 * 2
    tiled = images_of(vision("deepseek_ocr2"), 1280, 720)
    assert tiled.local_shape() == (2, 3, 768, 768)
    assert tiled.pixel_bytes() == 4 * 3 * (1024**2 + 2 * 768**2)
    assert images_of(vision("deepseek_ocr2"), 600, 400).local_shape() == ()


def test_text_sees_the_tiles_of_mllama_from_aside() -> None:
    found = images_of(vision("mllama"), 1280, 720, images=2)
    assert (found.tokens, found.crossed, found.tiles) == (2, 2 * 4 * 1601, 8)


@pytest.mark.parametrize(
    ("processor", "tokens"),
    [
        ({}, 15768),
        ({"size": {"longest_edge": 1003520, "shortest_edge": 3136}}, 1230),
        ({"max_pixels": 1003520}, 1230),
        ({"patch_size": 16, "size": {"longest_edge": 16777216}}, 12032),
    ],
)
def test_a_preprocessor_config_overrides(processor: dict[str, Any], tokens: int) -> None:
    assert images_of(vision("qwen2_vl"), 4096, 3024, processor=processor).tokens == tokens


def test_a_size_may_be_one_number() -> None:
    assert images_of(vision("paligemma"), 640, 480, processor={"size": 896}).tokens == 4096


@pytest.mark.parametrize(
    ("config", "processor", "said"),
    [
        ({"model_type": "llama"}, {}, "nothing is known of how 'llama' reads images"),
        ({}, {}, "nothing is known of how 'None' reads images"),
        (vision("qwen2_vl"), {"patch_size": "14"}, "patch_size cannot be"),
        (vision("qwen2_vl", patch_size=0), {}, "patch_size cannot be 0"),
        (vision("internvl"), {"max_patches": 10**9}, "into 1 to 1,000,000,000 tiles"),
        (vision("internvl"), {"crop_to_patches": 1}, "crop_to_patches cannot be 1"),
        (vision("llava_next"), {"image_grid_pinpoints": [[336]]}, "image_grid_pinpoints cannot be"),
        (vision("llava_next", patch_size=1000), {}, "no patch of 1,000 pixels fits"),
    ],
)
def test_what_cannot_be_is_refused(config: dict[str, Any], processor: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        images_of(config, 640, 480, processor=processor)


def test_sizes_that_cannot_be_are_refused() -> None:
    with pytest.raises(SpecError, match="more than 200 times as long"):
        images_of(vision("qwen2_vl"), 2010, 10)
    with pytest.raises(SpecError, match="not 0 x 480"):
        images_of(vision("llava"), 0, 480)
