"""Images of one size, whatever they were: LLaVA, PaliGemma, Gemma 3 (with its crops, where asked) and Gemma 3n."""

from __future__ import annotations

from math import ceil, floor

from peftbench.inputs.media.image import Cut, ImageFamily
from peftbench.inputs.media.settings import Settings


def _llava(s: Settings, height: int, width: int) -> Cut:
    """Cropped to a square; strategy "default" leaves the tower's first row out."""
    side = s["crop_size.height"]
    rows = (side // s["patch_size"]) ** 2 + s["num_additional_image_tokens"]
    skipped = s["vision_feature_select_strategy"] == "default"
    return Cut(rows - skipped, rows, (side, side), (3, side, side))


def _siglip(s: Settings, height: int, width: int) -> Cut:
    side = s["size.height"]
    rows = (side // s["patch_size"]) ** 2
    return Cut(rows, rows, (side, side), (3, side, side))


def _gemma3n(s: Settings, height: int, width: int) -> Cut:
    """The tower is convolutional: its rows are what it puts out. Two line ends, begin and end."""
    side, tokens = s["size.height"], s["image_seq_length"]
    return Cut(tokens, tokens, (side, side), (3, side, side), markers=4)


def _gemma3(s: Settings, height: int, width: int) -> Cut:
    """One view and, with pan and scan, its crops, each between two line ends, begin and end."""
    side = s["size.height"]
    views = 1 + (_crops(s, height, width) if s["do_pan_and_scan"] else 0)
    rows = views * (side // s["patch_size"]) ** 2
    return Cut(views * s["image_seq_length"], rows, (side, side), (views, 3, side, side), 4 * views, views)


def _crops(s: Settings, height: int, width: int) -> int:
    """How many pieces a long image is cut into along its longer side; 0: none."""
    longer, shorter = max(height, width), min(height, width)
    if longer / shorter < s["pan_and_scan_min_ratio_to_activate"]:
        return 0
    smallest = s["pan_and_scan_min_crop_size"]
    crops = max(2, min(longer // smallest, floor(longer / shorter + 0.5)))
    crops = min(s["pan_and_scan_max_num_crops"], crops)
    return crops if min(ceil(longer / crops), shorter) >= smallest else 0


_TOWER = {"size.height": "vision_config.image_size", "patch_size": "vision_config.patch_size"}
_PAN_AND_SCAN = {
    "do_pan_and_scan": False, "pan_and_scan_min_crop_size": 256, "pan_and_scan_max_num_crops": 4,
    "pan_and_scan_min_ratio_to_activate": 1.2,
}  # fmt: skip
_LLAVA = ImageFamily(
    _llava,
    {"crop_size.height": 336, "patch_size": 14, "num_additional_image_tokens": 1,
     "vision_feature_select_strategy": "default"},
    {"crop_size.height": "vision_config.image_size", "patch_size": "vision_config.patch_size",
     "vision_feature_select_strategy": "vision_feature_select_strategy"},
    batch="stacked",
)  # fmt: skip
FAMILIES = {
    "llava": _LLAVA,
    "paligemma": ImageFamily(_siglip, {"size.height": 224, "patch_size": 14}, _TOWER, batch="stacked"),
    "gemma3": ImageFamily(
        _gemma3, {"size.height": 896, "patch_size": 14, "image_seq_length": 256, **_PAN_AND_SCAN},
        {**_TOWER, "image_seq_length": "mm_tokens_per_image"},
    ),
    "gemma3n": ImageFamily(
        _gemma3n, {"size.height": 768, "image_seq_length": 256}, {"image_seq_length": "vision_soft_tokens_per_image"},
        batch="stacked",
    ),
}  # fmt: skip
