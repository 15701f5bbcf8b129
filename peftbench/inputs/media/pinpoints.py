"""Images fitted into the best of listed sizes, whose padding is cut from the features: LLaVA-NeXT, OneVision."""

from __future__ import annotations

from math import sqrt

from peftbench.inputs.media.image import Cut, ImageFamily, Size
from peftbench.inputs.media.settings import Settings


def _best(pinpoints: tuple[Size, ...], height: int, width: int) -> Size:
    """The size that keeps most of the image's pixels, and of those the one that wastes least."""

    def worth(size: Size) -> Size:
        scale = min(size[1] / width, size[0] / height)
        kept = min(int(width * scale) * int(height * scale), height * width)
        return kept, kept - size[0] * size[1]

    return max(pinpoints, key=worth)


def _unpadded(features: Size, height: int, width: int) -> Size:
    """Rows and columns of features that the image covers, when its shape is not that of the tiles."""
    high, wide = features
    if width / height > wide / high:
        return high - (high - int(round(height * (wide / width), 7))) // 2 * 2, wide
    return high, wide - (wide - int(round(width * (high / height), 7))) // 2 * 2


def _shrunk(s: Settings, features: Size, per_side: int) -> Size:
    """OneVision averages features over more than vision_aspect_ratio's tiles of them: "anyres_max_9"."""
    most = s["vision_aspect_ratio"].removeprefix("anyres_max_")
    ratio = sqrt(features[0] * features[1] / (int(most) * per_side**2)) if most.isdigit() else 1
    return (int(features[0] // ratio), int(features[1] // ratio)) if ratio > 1.1 else features


def _cut(s: Settings, height: int, width: int) -> Cut:
    """A view of all, then tiles with a line end after each row of features."""
    tile, per_side = s["size.height"], s["size.height"] // s["patch_size"]
    size = _best(s["image_grid_pinpoints"], height, width)
    grid = (size[0] // tile, size[1] // tile)
    high, wide = _shrunk(s, _unpadded((per_side * grid[0], per_side * grid[1]), height, width), per_side)
    view = per_side**2 + s["num_additional_image_tokens"]
    skipped = s["vision_feature_select_strategy"] == "default"
    tiles = 1 + grid[0] * grid[1]
    return Cut(view - skipped + high * (wide + 1), tiles * view, size, (tiles, 3, tile, tile), tiles=tiles)


def _view_only(s: Settings, height: int, width: int) -> Cut:
    """One of several images: no tiles, and one line end."""
    tile = s["size.height"]
    rows = (tile // s["patch_size"]) ** 2
    tokens = rows + 1 - (s["vision_feature_select_strategy"] == "default")
    return Cut(tokens, rows, (tile, tile), (1, 3, tile, tile))


_IMPLIED = {
    "size.height": "vision_config.image_size", "patch_size": "vision_config.patch_size",
    "image_grid_pinpoints": "image_grid_pinpoints",
    "vision_feature_select_strategy": "vision_feature_select_strategy",
}  # fmt: skip
_NEXT = ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008))
_SIXTHS = range(384, 2305, 384)
FAMILIES = {
    "llava_next": ImageFamily(
        _cut,
        {"size.height": 336, "patch_size": 14, "image_grid_pinpoints": _NEXT, "num_additional_image_tokens": 1,
         "vision_feature_select_strategy": "default", "vision_aspect_ratio": "anyres"},
        _IMPLIED, batch="stacked",
    ),
    "llava_onevision": ImageFamily(
        _cut,
        {"size.height": 384, "patch_size": 14, "num_additional_image_tokens": 0,
         "image_grid_pinpoints": tuple((high, wide) for high in _SIXTHS for wide in _SIXTHS),
         "vision_feature_select_strategy": "full", "vision_aspect_ratio": "anyres_max_9"},
        {**_IMPLIED, "vision_aspect_ratio": "vision_aspect_ratio"}, several=_view_only, batch="stacked",
    ),
}  # fmt: skip
