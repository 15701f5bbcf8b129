"""Images enlarged to a longest edge, then split into tiles and a view of all: Idefics 3 and SmolVLM."""

from __future__ import annotations

from math import ceil

from peftbench.inputs.media.image import Cut, ImageFamily, Size
from peftbench.inputs.media.settings import Settings

LARGEST = 4096
"""No side is longer, whatever the settings say."""
EDGES = 4
"""Tiles to a longest edge that no setting names."""


def _enlarged(height: int, width: int, longest: int) -> Size:
    """The longer side is `longest`, the shorter one even."""
    shape = width / height
    if width >= height:
        shorter = int(longest / shape)
        return max(1, shorter + shorter % 2), longest
    shorter = int(longest * shape)
    return longest, max(1, shorter + shorter % 2)


def _bounded(height: int, width: int) -> Size:
    shape = width / height
    if width >= height and width > LARGEST:
        return max(1, int(LARGEST / shape)), LARGEST
    if height > width and height > LARGEST:
        return LARGEST, max(1, int(LARGEST * shape))
    return height, width


def _whole_tiles(height: int, width: int, tile: int) -> Size:
    """Rows and columns of tiles that the image is stretched over."""
    shape = width / height
    if width >= height:
        columns = ceil(width / tile)
        return ceil(int(columns * tile / shape) / tile), columns
    rows = ceil(height / tile)
    return rows, ceil(int(rows * tile * shape) / tile)


def _cut(s: Settings, height: int, width: int) -> Cut:
    """Each piece has a name and a border, each row of tiles a line end."""
    tile = s["max_image_size.longest_edge"]
    longest = s["size.longest_edge"] or EDGES * tile
    rows, columns = 1, 1
    if s["do_image_splitting"]:
        rows, columns = _whole_tiles(*_bounded(*_enlarged(height, width, longest)), tile)
    split = rows * columns > 1
    pieces = 1 + rows * columns * split
    patches, features = (tile // s["patch_size"]) ** 2, (tile // s["patch_size"] // s["scale_factor"]) ** 2
    markers = 3 + rows * (2 * columns + 1) * split
    shape = (pieces, 3, tile, tile)
    return Cut(pieces * features, pieces * patches, (rows * tile, columns * tile), shape, markers, pieces)


_IDEFICS3 = ImageFamily(
    _cut,
    {"max_image_size.longest_edge": 364, "size.longest_edge": 0, "patch_size": 14, "scale_factor": 2,
     "do_image_splitting": True},
    {"max_image_size.longest_edge": "vision_config.image_size", "patch_size": "vision_config.patch_size",
     "scale_factor": "scale_factor"},
    batch="tiles",
)  # fmt: skip
FAMILIES = {"idefics3": _IDEFICS3, "smolvlm": _IDEFICS3}
