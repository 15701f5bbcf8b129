"""Images that shrink to a longest edge, and keep their shape in whole patches: Pixtral's tower."""

from __future__ import annotations

from math import ceil, floor

from peftbench.inputs.media.image import Cut, ImageFamily, Size
from peftbench.inputs.media.settings import Settings


def _shrunk(s: Settings, height: int, width: int, factor: int) -> Size:
    """Whole multiples of `factor` of the image, whose longer side has longest_edge pixels at most."""
    ratio = max(height / s["size.longest_edge"], width / s["size.longest_edge"])
    sides = (floor(height / ratio), floor(width / ratio)) if ratio > 1 else (height, width)
    return ceil(sides[0] / factor) * factor, ceil(sides[1] / factor) * factor


def _cut(s: Settings, size: Size) -> Cut:
    patch, side = s["patch_size"], s["patch_size"] * s["spatial_merge_size"]
    rows = (size[0] // patch) * (size[1] // patch)
    return Cut((size[0] // side) * (size[1] // side), rows, size, (3, *size))


def _pixtral(s: Settings, height: int, width: int) -> Cut:
    """A break ends each row of tokens."""
    side = s["patch_size"] * s["spatial_merge_size"]
    size = _shrunk(s, height, width, side)
    return _cut(s, size)._replace(markers=size[0] // side)


def _lighton(s: Settings, height: int, width: int) -> Cut:
    """No breaks; an odd row or column of patches is lost in merging."""
    return _cut(s, _shrunk(s, height, width, s["patch_size"]))


_IMPLIED = {
    "patch_size": "vision_config.patch_size", "size.longest_edge": "vision_config.image_size",
    "spatial_merge_size": "spatial_merge_size",
}  # fmt: skip
_MISTRAL3 = ImageFamily(
    _pixtral, {"patch_size": 14, "spatial_merge_size": 2, "size.longest_edge": 1540}, _IMPLIED, batch="stacked"
)
FAMILIES = {
    "mistral3": _MISTRAL3,
    "llava/pixtral": _MISTRAL3._replace(
        defaults={"patch_size": 16, "spatial_merge_size": 1, "size.longest_edge": 1024}
    ),
    "lighton_ocr": _MISTRAL3._replace(cut=_lighton),
}
